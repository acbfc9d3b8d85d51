// A client of centrifuge-go, driven as client.js is.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

type values map[string]any

var options struct {
	Endpoint, Cookie string
	Protobuf, Tokens bool
}

var (
	saying  sync.Mutex
	asking  sync.Mutex
	waiting = map[string]chan string{}
)

func say(event string, what values) {
	what["event"] = event
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	saying.Lock()
	defer saying.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func decode(data []byte) any {
	var found any
	if json.Unmarshal(data, &found) != nil {
		return string(data)
	}
	return found
}

func described(info *centrifuge.ClientInfo) any {
	if info == nil {
		return nil
	}
	return values{"user": info.User, "client": info.Client, "chan": decode(info.ChanInfo)}
}

func publication(pub centrifuge.Publication) values {
	return values{
		"data": decode(pub.Data), "offset": pub.Offset, "info": described(pub.Info), "tags": pub.Tags,
	}
}

func at(channel string, what values) values {
	what["channel"] = channel
	return what
}

func position(recovered, wasRecovering, recoverable bool, stream *centrifuge.StreamPosition) values {
	what := values{
		"recovered": recovered, "wasRecovering": wasRecovering, "recoverable": recoverable,
	}
	if stream != nil {
		what["position"] = values{"offset": stream.Offset, "epoch": stream.Epoch}
	}
	return what
}

func code(err error) any {
	var found *centrifuge.Error
	if errors.As(err, &found) {
		return found.Code
	}
	return err.Error()
}

func ask(channel string) (string, error) {
	answer := make(chan string, 1)
	asking.Lock()
	waiting[channel] = answer
	asking.Unlock()
	say("token", values{"channel": channel})
	return <-answer, nil
}

func newClient() *centrifuge.Client {
	config := centrifuge.Config{
		MinReconnectDelay: 20 * time.Millisecond, MaxReconnectDelay: 100 * time.Millisecond,
	}
	if options.Cookie != "" {
		config.Header = http.Header{"Cookie": {options.Cookie}}
	}
	if options.Tokens {
		config.GetToken = func(centrifuge.ConnectionTokenEvent) (string, error) { return ask("") }
	}
	construct := centrifuge.NewJsonClient
	if options.Protobuf {
		construct = centrifuge.NewProtobufClient
	}
	client := construct(options.Endpoint, config)
	client.OnConnecting(func(e centrifuge.ConnectingEvent) {
		say("connecting", values{"code": e.Code})
	})
	client.OnConnected(func(e centrifuge.ConnectedEvent) {
		say("connected", values{"client": e.ClientID})
	})
	client.OnDisconnected(func(e centrifuge.DisconnectedEvent) {
		say("disconnected", values{"code": e.Code})
	})
	client.OnError(func(e centrifuge.ErrorEvent) {
		say("error", values{"code": code(e.Error), "text": e.Error.Error()})
	})
	client.OnSubscribed(func(e centrifuge.ServerSubscribedEvent) {
		say("subscribed", at(e.Channel, position(
			e.Recovered, e.WasRecovering, e.Recoverable, e.StreamPosition)))
	})
	client.OnUnsubscribed(func(e centrifuge.ServerUnsubscribedEvent) {
		say("unsubscribed", values{"channel": e.Channel})
	})
	client.OnPublication(func(e centrifuge.ServerPublicationEvent) {
		say("publication", at(e.Channel, publication(e.Publication)))
	})
	client.OnJoin(func(e centrifuge.ServerJoinEvent) {
		say("join", values{"channel": e.Channel, "info": described(&e.ClientInfo)})
	})
	client.OnLeave(func(e centrifuge.ServerLeaveEvent) {
		say("leave", values{"channel": e.Channel, "info": described(&e.ClientInfo)})
	})
	return client
}

func newSubscription(client *centrifuge.Client, channel string, tokens bool) *centrifuge.Subscription {
	config := centrifuge.SubscriptionConfig{
		JoinLeave:           true,
		MinResubscribeDelay: 20 * time.Millisecond, MaxResubscribeDelay: 100 * time.Millisecond,
	}
	if tokens {
		config.GetToken = func(e centrifuge.SubscriptionTokenEvent) (string, error) {
			return ask(e.Channel)
		}
	}
	subscription, err := client.NewSubscription(channel, config)
	if err != nil {
		panic(err)
	}
	subscription.OnSubscribing(func(e centrifuge.SubscribingEvent) {
		say("subscribing", values{"channel": channel, "code": e.Code})
	})
	subscription.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		say("subscribed", at(channel, position(
			e.Recovered, e.WasRecovering, e.Recoverable, e.StreamPosition)))
	})
	subscription.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) {
		say("unsubscribed", values{"channel": channel, "code": e.Code})
	})
	subscription.OnPublication(func(e centrifuge.PublicationEvent) {
		say("publication", at(channel, publication(e.Publication)))
	})
	subscription.OnJoin(func(e centrifuge.JoinEvent) {
		say("join", values{"channel": channel, "info": described(&e.ClientInfo)})
	})
	subscription.OnLeave(func(e centrifuge.LeaveEvent) {
		say("leave", values{"channel": channel, "info": described(&e.ClientInfo)})
	})
	subscription.OnError(func(e centrifuge.SubscriptionErrorEvent) {
		say("error", values{"channel": channel, "code": code(e.Error)})
	})
	return subscription
}

type command struct {
	Do, Channel, Token string
	ID                 int
	Tokens, Reverse    bool
	Limit              int32
	Since              *centrifuge.StreamPosition
	Data               json.RawMessage
}

// answer carries out a command that the server answers.
func answer(client *centrifuge.Client, each command) (values, error) {
	ctx := context.Background()
	switch each.Do {
	case "publish":
		_, err := client.Publish(ctx, each.Channel, each.Data)
		return values{}, err
	case "history":
		found, err := client.History(ctx, each.Channel, centrifuge.WithHistoryLimit(each.Limit),
			centrifuge.WithHistorySince(each.Since), centrifuge.WithHistoryReverse(each.Reverse))
		publications := []values{}
		for _, pub := range found.Publications {
			publications = append(publications, publication(pub))
		}
		return values{
			"publications": publications, "offset": found.Offset, "epoch": found.Epoch,
		}, err
	case "presence":
		found, err := client.Presence(ctx, each.Channel)
		clients := values{}
		for id, info := range found.Clients {
			clients[id] = described(&info)
		}
		return values{"clients": clients}, err
	case "presence_stats":
		found, err := client.PresenceStats(ctx, each.Channel)
		return values{"clients": found.NumClients, "users": found.NumUsers}, err
	}
	panic(each.Do)
}

func main() {
	if err := json.Unmarshal([]byte(os.Args[1]), &options); err != nil {
		panic(err)
	}
	client := newClient()
	subscriptions := map[string]*centrifuge.Subscription{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var each command
		if err := json.Unmarshal(lines.Bytes(), &each); err != nil {
			panic(err)
		}
		switch each.Do {
		case "connect":
			go client.Connect()
		case "disconnect":
			go client.Disconnect()
		case "subscribe":
			subscription := subscriptions[each.Channel]
			if subscription == nil {
				subscription = newSubscription(client, each.Channel, each.Tokens)
				subscriptions[each.Channel] = subscription
			}
			go subscription.Subscribe()
		case "unsubscribe":
			go subscriptions[each.Channel].Unsubscribe()
		case "token":
			asking.Lock()
			waiting[each.Channel] <- each.Token
			asking.Unlock()
		default:
			go func() {
				found, err := answer(client, each)
				if err != nil {
					found = values{"error": code(err)}
				}
				found["id"] = each.ID
				say("answer", found)
			}()
		}
	}
}
