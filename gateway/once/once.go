// Package once remembers what operators may do only once: use a signature, and
// act under an Idempotency-Key.
//
// A signature is remembered until it is too old to be used. The answer to an act
// under a key is kept for a day, so that a client that lost the answer may ask
// again (draft-ietf-httpapi-idempotency-key-header). Both are bounded, and a
// store at its bound refuses rather than forgets.
//
// [Memory] serves one process; with [SQL], all nodes on one database share what
// they remember.
package once

import (
	"context"
	"errors"
	"time"
)

const (
	// KeepAnswers is how long the answer to an act is kept.
	KeepAnswers = 24 * time.Hour
	// RunningFor is how long an act may take. After that, one that began and was
	// never finished counts as cut off, and may begin again.
	RunningFor = time.Minute

	maxSignatures = 100_000
	maxAnswers    = 10_000 // of one operator
	// margin is how much longer a signature is kept, for nodes whose clocks are behind.
	margin = 5 * time.Minute
)

// ErrFull says that no more can be remembered now.
var ErrFull = errors.New("too much is remembered already: wait, or send less")

// Act names an act of an operator: the key is of the operator's choosing.
type Act struct{ Operator, Key string }

// Request is the SHA-256 of the request that came with a key.
type Request [32]byte

// Answer is what an act was answered.
type Answer struct {
	Status   int
	Location string // of what was made; may be empty
	Body     []byte // at most 64 KiB
}

// Progress is how far an act under a key has come.
type Progress int

const (
	New     Progress = iota // the caller is the first: it acts, then calls Finish or Abandon
	Running                 // another call is at it
	Done                    // it was answered
	Other                   // the key was used with another request
)

// Store remembers. It is safe for concurrent use.
type Store interface {
	// Seen reports whether the signature was seen before, and remembers it until
	// then. Of several calls with one signature exactly one hears false.
	Seen(ctx context.Context, signature string, until time.Time) (bool, error)

	// Begin tells how far the act has come, with its answer if it is Done. Of
	// several calls at once exactly one hears New.
	Begin(ctx context.Context, a Act, r Request) (Progress, Answer, error)
	// Finish keeps the answer of an act that is Running, for KeepAnswers.
	Finish(ctx context.Context, a Act, answer Answer) error
	// Abandon forgets an act that is Running: it had no effect.
	Abandon(ctx context.Context, a Act) error
}
