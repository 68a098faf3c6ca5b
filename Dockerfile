# The image of every daemon and of the command line: `make image` builds it, README.md says how it is used.
#
# Both stages have the same base, so the virtual environment that the first makes runs in the second.
# What is installed is what the lock files name, by its hash, wherever it comes from.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# For a mirror of the package index.
ARG PIP_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY deploy/image/build.lock deploy/image/requirements.lock ./
RUN python -m venv tools \
    && python -m venv --without-pip /opt/atemporal \
    && tools/bin/pip install --require-hashes --no-deps --only-binary :all: -r build.lock \
    && tools/bin/pip --python /opt/atemporal/bin/python install \
        --require-hashes --no-deps --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY atemporal atemporal
COPY services services
COPY cloud_config cloud_config
RUN tools/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir dist . \
    && tools/bin/pip --python /opt/atemporal/bin/python install --no-deps --no-index dist/*.whl

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="atemporal" \
    org.opencontainers.image.description="Run a container at a given time, on an EC2 instance of its own." \
    org.opencontainers.image.source="https://github.com/andrerocker/atemporal" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# The folder is for a twin's state; a volume that is mounted there begins with its owner.
RUN groupadd --gid 10001 atemporal \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/atemporal \
        --shell /usr/sbin/nologin atemporal \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/atemporal
COPY --from=build /opt/atemporal /opt/atemporal
COPY deploy/image/entrypoint deploy/image/healthy /opt/atemporal/libexec/
# One process a container, so one port for all: a daemon's probes and metrics, or the API.
ENV PATH=/opt/atemporal/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    ATEMPORAL_HEALTH_HOST=0.0.0.0 \
    ATEMPORAL_HEALTH_PORT=8080 \
    ATEMPORAL_API_HOST=0.0.0.0 \
    ATEMPORAL_API_PORT=8080
EXPOSE 8080
USER 10001:10001
WORKDIR /var/lib/atemporal
ENTRYPOINT ["/opt/atemporal/libexec/entrypoint"]
CMD ["--help"]
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 \
    CMD ["/opt/atemporal/libexec/healthy"]
