// Print the end of each job, one JSON object a line, until you press Ctrl-C.
//
//     AMQP_URL=amqp://user:password@host:5672/%2F node listen.js QUEUE
//
// The queue is yours: it is made if it is not there, and keeps what comes while nobody listens.
const amqp = require("amqplib");

async function main(queue) {
  const connection = await amqp.connect(process.env.AMQP_URL);
  const channel = await connection.createChannel();
  // An orderly end of the broker is a `close` without an `error`.
  for (const one of [connection, channel]) one.on("error", fail).on("close", fail);
  await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "quorum" } });
  await channel.bindQueue(queue, "atemporal.events", "job.finished.#");
  await channel.prefetch(100);
  await channel.consume(queue, (event) => {
    if (!event) return fail(new Error("the queue was deleted"));
    // An event can come twice: whatever you do with it, do it once for its `event_id`.
    console.log(event.content.toString());
    channel.ack(event);
  });
  console.error("listening");
}

function fail(error) {
  console.error(error?.message ?? "connection lost");
  process.exit(2);
}

main(process.argv[2]).catch(fail);
