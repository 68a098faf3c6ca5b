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
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	key, direct := os.Args[1], len(os.Args) > 2 && os.Args[2] == "--direct"
	var job json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&job); err != nil {
		log.Fatal(err)
	}
	message := must(json.Marshal(map[string]any{"type": "job.submit", "v": 1, "job": job}))

	connection := must(amqp.Dial(os.Getenv("AMQP_URL")))
	defer connection.Close()
	channel := must(connection.Channel())
	if err := channel.Confirm(false); err != nil {
		log.Fatal(err)
	}

	replies := "amq.rabbitmq.reply-to"
	if !direct {
		replies = must(channel.QueueDeclare("", false, false, true, false, nil)).Name
	}
	answers := must(channel.Consume(replies, "", true, false, false, false, nil))
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	confirmed := must(channel.PublishWithDeferredConfirmWithContext(
		ctx, "atemporal", "job.submit", true, false,
		amqp.Publishing{MessageId: key, DeliveryMode: amqp.Persistent, ReplyTo: replies, Body: message},
	))
	if !confirmed.Wait() {
		log.Fatal("the broker did not take it: send it again, with the same key")
	}

	select {
	case answer := <-answers:
		var reply struct{ Status string }
		if err := json.Unmarshal(answer.Body, &reply); err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(answer.Body))
		if reply.Status == "rejected" {
			os.Exit(1)
		}
	case <-returned:
		log.Fatal("the broker has no queue for it: is atemporal set up there?")
	case <-ctx.Done():
		log.Fatal("no reply: send it again, with the same key")
	}
}
