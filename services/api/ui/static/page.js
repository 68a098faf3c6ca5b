// What the page can do without this it does: this keeps it up to date while somebody looks.
"use strict";

const EVERY_MS = 5000;
const FOLLOW_MS = 1500;
const RETRY_MS = 5000;
const MOST = 2000000;

// Sections with data-live are replaced by what the server says now, but for one that has the focus.
function refresh(tools) {
  const box = tools.querySelector("input");
  let timer = 0;
  tools.hidden = false;
  async function again() {
    try {
      const response = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!response.ok) throw new Error(String(response.status));
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      const old = document.querySelectorAll("[data-live]");
      const now = fresh.querySelectorAll("[data-live]");
      if (old.length === now.length) {
        old.forEach((section, number) => {
          if (section.contains(document.activeElement)) return;
          const opened = [...section.querySelectorAll("details")].map((one) => one.open);
          section.replaceWith(document.adoptNode(now[number]));
          now[number].querySelectorAll("details").forEach((one, which) => { one.open = Boolean(opened[which]); });
        });
      }
    } catch {
      // The next time may go well; what is shown stays.
    }
    if (box.checked) timer = setTimeout(again, EVERY_MS);
  }
  box.addEventListener("change", () => {
    clearTimeout(timer);
    if (box.checked) again();
  });
}

function bytes(text) {
  return Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
}

// A log is followed by positions, so each byte comes once; a character may come in two pieces.
function follow(tools, log) {
  if (log.dataset.ended === "yes") return;
  const box = tools.querySelector("input");
  const state = tools.querySelector("[data-follow-state]");
  let decoder = new TextDecoder();
  let timer = 0;
  tools.hidden = false;
  function gap(text) {
    const mark = document.createElement("i");
    mark.textContent = `[${text}]\n`;
    log.append(mark);
  }
  async function again() {
    let wait = FOLLOW_MS;
    try {
      const response = await fetch(`${log.dataset.log}&after=${log.dataset.next}`);
      if (!response.ok) throw new Error(String(response.status));
      const page = await response.json();
      const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
      for (const part of page.parts) {
        if (part.missing !== 0) {
          decoder = new TextDecoder();
          gap(part.missing === null ? "output may be missing here, or come again" : `${part.missing} ${part.missing === 1 ? "byte" : "bytes"} not kept`);
        }
        log.append(decoder.decode(bytes(part.data), { stream: true }).replaceAll("\r\n", "\n"));
      }
      while (log.textContent.length > MOST) log.firstChild.remove();
      log.dataset.next = String(page.next);
      if (atEnd) log.scrollTop = log.scrollHeight;
      if (page.more) wait = 0;
      else if (page.ended) {
        box.checked = false;
        box.disabled = true;
        state.textContent = "It has ended.";
      } else state.textContent = "";
    } catch {
      state.textContent = "The server does not answer; it is asked again.";
      wait = RETRY_MS;
    }
    if (box.checked) timer = setTimeout(again, wait);
  }
  box.addEventListener("change", () => {
    clearTimeout(timer);
    if (box.checked) again();
  });
}

document.querySelectorAll("[data-refresh]").forEach(refresh);
const log = document.querySelector("[data-log]");
const tools = document.querySelector("[data-follow]");
if (log && tools) follow(tools, log);
