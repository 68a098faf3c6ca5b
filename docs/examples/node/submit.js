// Submit the job on standard input by a message, and print what became of it.
//
//     AMQP_URL=amqp://user:password@host:5672/%2F node submit.js KEY [--direct] < job.json
//
// `--direct` takes RabbitMQ's direct reply-to in place of a queue of its own.
const { readFileSync } = require("node:fs");
const amqp = require("amqplib");

async function main(key, direct) {
  const message = { type: "job.submit", v: 1, job: JSON.parse(readFileSync(0, "utf8")) };
  const connection = await amqp.connect(process.env.AMQP_URL);
  const channel = await connection.createConfirmChannel();

  const replies = direct
    ? "amq.rabbitmq.reply-to"
    : (await channel.assertQueue("", { exclusive: true })).queue;

  const reply = new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(why));
    channel.consume(replies, resolve, { noAck: true }).catch(reject);
    // An orderly end of the broker is a `close` without an `error`.
    for (const one of [connection, channel]) one.on("error", reject).on("close", () => fail("connection lost"));
    channel.on("return", () => fail("the broker has no queue for it: is atemporal set up there? If so"));
    channel.on("nack", () => fail("the broker did not take it"));
    setTimeout(() => fail("no reply"), 30_000);
  });
  channel.publish("atemporal", "job.submit", Buffer.from(JSON.stringify(message)), {
    messageId: key,
    persistent: true,
    replyTo: replies,
    mandatory: true,
  });
  const answer = JSON.parse((await reply).content);
  console.log(JSON.stringify(answer));
  await connection.close();
  return answer.status === "rejected" ? 1 : 0;
}

main(process.argv[2], process.argv.includes("--direct")).then(process.exit, (error) => {
  console.error(`${error.message}: send it again, with the same key`);
  process.exit(2);
});
