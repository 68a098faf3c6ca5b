// Print the end of each job, one JSON object a line, until you press Ctrl-C.
//
//	AMQP_URL=amqp://user:password@host:5672/%2F listen QUEUE
//
// The queue is yours: it is made if it is not there, and keeps what comes while nobody listens.
package main

import (
	"fmt"
	"os"

	amqp "github.com/rabbitmq/amqp091-go"
)

func fail(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(2)
}

func must[T any](value T, err error) T {
	if err != nil {
		fail(err)
	}
	return value
}

func main() {
	queue := os.Args[1]
	connection := must(amqp.Dial(os.Getenv("AMQP_URL")))
	channel := must(connection.Channel())
	must(channel.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum"}))
	if err := channel.QueueBind(queue, "job.finished.#", "atemporal.events", false, nil); err != nil {
		fail(err)
	}
	if err := channel.Qos(100, 0, false); err != nil {
		fail(err)
	}
	events := must(channel.Consume(queue, "", false, false, false, false, nil))
	fmt.Fprintln(os.Stderr, "listening")

	for event := range events {
		// An event can come twice: whatever you do with it, do it once for its `event_id`.
		fmt.Println(string(event.Body))
		if err := event.Ack(false); err != nil {
			fail(err)
		}
	}
	fail("the connection is lost, or the queue was deleted")
}
