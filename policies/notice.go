package policies

import (
	"math/rand/v2"
	"time"
)

// NoticeState is how far a notice has come.
type NoticeState string

const (
	Pending   NoticeState = "pending"   // to be sent, now or at Next
	Leased    NoticeState = "leased"    // somebody is sending it, and has until Next to say what became of it
	Uncertain NoticeState = "uncertain" // as pending or leased, and an earlier attempt may have arrived: the text says so
	Sent      NoticeState = "sent"      // the other side took it
	GivenUp   NoticeState = "given_up"  // refused for good, or tried too often
)

// open reports whether there is something left to do.
func (s NoticeState) open() bool { return s == Pending || s == Leased || s == Uncertain }

// Notice is an intent to tell somebody something. Intents come into being by a
// unique key in the same transaction as what they tell of, so that each thing is
// told at least once and, but for a crash between the other side's answer and our
// commit, at most once.
type Notice struct {
	Key       string            `json:"key"`          // unique: what is told, about whom, to whom, in which window
	Channel   string            `json:"channel"`      // mail, webhook
	Template  string            `json:"template"`     // name of the words
	To        string            `json:"to,omitempty"` // where it goes: an address of the directory, or a configured hook
	Values    map[string]string `json:"values,omitempty"`
	State     NoticeState       `json:"state"`
	Owner     string            `json:"owner,omitempty"` // who was handed it last
	Created   time.Time         `json:"created"`
	Attempts  int               `json:"attempts"`      // how often it was handed out
	Next      time.Time         `json:"next,omitzero"` // not before; of one that somebody holds, the end of the lease
	MessageID string            `json:"message_id"`    // the same for every attempt, so that the other side can tell a repetition
}

const (
	firstRetry   = 5 * time.Second
	longestRetry = time.Hour
	// GiveUpAfter is how long a notice is tried, from when it came into being.
	GiveUpAfter = 3 * 24 * time.Hour
)

// Backoff is how long to wait after a notice's nth attempt failed, n from 1 on: any
// time up to 5 s, 10 s, 20 s and so on up to an hour, so that notices that failed
// together do not come back together (full jitter).
func Backoff(attempt int) time.Duration { return backoff(attempt, rand.Int64N) }

// backoff takes random, which returns a number in [0, n).
func backoff(attempt int, random func(n int64) int64) time.Duration {
	most := longestRetry
	if attempt = max(attempt, 1); attempt < 12 {
		most = min(most, firstRetry<<(attempt-1))
	}
	return time.Duration(random(int64(most) + 1))
}

// Retry is as what, and until when, to settle n whose attempt failed at now: it is
// tried again after [Backoff] with n.Attempts, and given up where that is more than
// [GiveUpAfter] after it came into being.
func (n Notice) Retry(now time.Time) (s NoticeState, next time.Time) {
	next = now.Add(Backoff(n.Attempts))
	if next.Sub(n.Created) > GiveUpAfter {
		return GivenUp, time.Time{}
	}
	return Pending, next
}
