package policies

import "time"

// NoticeState is how far a notice has come.
type NoticeState string

const (
	Pending   NoticeState = "pending"   // to be sent, now or at Next
	Sent      NoticeState = "sent"      // the other side took it
	Uncertain NoticeState = "uncertain" // sent, and the process ended before the answer was kept: may come twice, and then says so
	GivenUp   NoticeState = "given_up"  // refused for good, or tried too often
)

// Notice is an intent to tell somebody something. Intents come into being by a
// unique key in the same transaction as what they tell of, so that each thing is
// told at least once and, but for a crash between the other side's answer and our
// commit, at most once.
type Notice struct {
	Key       string            `json:"key"`      // unique: what is told, about whom, to whom, in which window
	Channel   string            `json:"channel"`  // mail, webhook
	Template  string            `json:"template"` // name of the words
	To        string            `json:"to"`       // where it goes: an address of the directory, or a configured hook
	Values    map[string]string `json:"values,omitempty"`
	State     NoticeState       `json:"state"`
	Created   time.Time         `json:"created"`
	Attempts  int               `json:"attempts"`
	Next      time.Time         `json:"next,omitzero"` // not before
	MessageID string            `json:"message_id"`    // the same for every attempt, so that the other side can tell a repetition
}
