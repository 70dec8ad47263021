package guard

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// errSessionEnded is the cause with which the requests of an ended session are cancelled.
var errSessionEnded = errors.New("the session ended")

// Sockets knows every request in flight that rides on a session: WebSockets,
// event streams, long polls and plain requests alike. Ending the session cancels
// them, which closes their connection to the backend and so the client's.
//
// It keeps one small record per request in flight and nothing else.
type Sockets struct {
	seed   maphash.Seed
	closes atomic.Uint64 // calls of Close; a change between a check and an open asks for a second check
	shards [64]socketShard
}

type socketShard struct {
	sync.Mutex
	open map[string]*socket // first of the session's list
}

type socket struct {
	session    string
	cancel     context.CancelCauseFunc
	prev, next *socket
}

// NewSockets returns an empty registry.
func NewSockets() *Sockets {
	s := &Sockets{seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].open = make(map[string]*socket)
	}
	return s
}

// open registers a request of session as so and returns the context it must run
// under. It is to be followed by done. The context ends with its parent, the
// request's own.
func (s *Sockets) open(ctx context.Context, so *socket, session string) context.Context {
	ctx, so.cancel = context.WithCancelCause(ctx)
	so.session = session
	shard := s.shard(session)
	shard.Lock()
	defer shard.Unlock()
	if first := shard.open[session]; first != nil {
		so.next, first.prev = first, so
	}
	shard.open[session] = so
	return ctx
}

// done removes so.
func (s *Sockets) done(so *socket) {
	shard := s.shard(so.session)
	shard.Lock()
	defer shard.Unlock()
	switch {
	case so.prev != nil:
		so.prev.next = so.next
	case so.next != nil:
		shard.open[so.session] = so.next
	default:
		delete(shard.open, so.session)
	}
	if so.next != nil {
		so.next.prev = so.prev
	}
}

func (s *Sockets) shard(session string) *socketShard {
	return &s.shards[maphash.String(s.seed, session)%uint64(len(s.shards))]
}

// Close cancels every request of session and returns how many there were.
func (s *Sockets) Close(session string) int {
	shard := s.shard(session)
	shard.Lock()
	defer shard.Unlock()
	s.closes.Add(1)
	n := 0
	for so := shard.open[session]; so != nil; so = so.next {
		so.cancel(errSessionEnded)
		n++
	}
	return n
}

// Len returns how many requests are registered.
func (s *Sockets) Len() int {
	n := 0
	for i := range s.shards {
		s.shards[i].Lock()
		for _, so := range s.shards[i].open {
			for ; so != nil; so = so.next {
				n++
			}
		}
		s.shards[i].Unlock()
	}
	return n
}
