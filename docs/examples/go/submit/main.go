// Submit the job on standard input by a message, and print what became of it.
//
//	AMQP_URL=amqp://user:password@host:5672/%2F submit KEY [--direct] < job.json
//
// `--direct` takes RabbitMQ's direct reply-to in place of a queue of its own.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func fail(why any) {
	fmt.Fprintf(os.Stderr, "%v: send it again, with the same key\n", why)
	os.Exit(2)
}

func must[T any](value T, err error) T {
	if err != nil {
		fail(err)
	}
	return value
}

func main() {
	key, direct := os.Args[1], len(os.Args) > 2 && os.Args[2] == "--direct"
	var job json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&job); err != nil {
		fail(err)
	}
	message := must(json.Marshal(map[string]any{"type": "job.submit", "v": 1, "job": job}))

	connection := must(amqp.Dial(os.Getenv("AMQP_URL")))
	defer connection.Close()
	channel := must(connection.Channel())
	if err := channel.Confirm(false); err != nil {
		fail(err)
	}

	replies := "amq.rabbitmq.reply-to"
	if !direct {
		replies = must(channel.QueueDeclare("", false, false, true, false, nil)).Name
	}
	answers := must(channel.Consume(replies, "", true, false, false, false, nil))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 1))
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := channel.PublishWithContext(
		ctx, "atemporal", "job.submit", true, false,
		amqp.Publishing{MessageId: key, DeliveryMode: amqp.Persistent, ReplyTo: replies, Body: message},
	); err != nil {
		fail(err)
	}

	for {
		// When the connection is lost, all three channels are closed.
		select {
		case confirm, ok := <-confirms:
			if !ok {
				fail("connection lost")
			}
			if !confirm.Ack {
				fail("the broker did not take it")
			}
		case _, ok := <-returned:
			if !ok {
				fail("connection lost")
			}
			fail("the broker has no queue for it: is atemporal set up there? If so")
		case answer, ok := <-answers:
			if !ok {
				fail("connection lost")
			}
			var reply struct{ Status string }
			if err := json.Unmarshal(answer.Body, &reply); err != nil {
				fail(err)
			}
			fmt.Println(string(answer.Body))
			if reply.Status == "rejected" {
				os.Exit(1)
			}
			return
		case <-ctx.Done():
			fail("no reply")
		}
	}
}
