package chatcore

import (
	"context"
	"sync"
	"time"

	"github.com/kidoban/kidoban/chatcore/chat"
)

// feedsMax is how many feeds one account follows at once.
const feedsMax = 64

// Feed tells one caller what happens in the caller's rooms. It holds no
// events itself: the stored events are its queue, a feed is a cursor into them
// and one bit, "there may be more". So however slowly a reader reads, a feed
// costs the same, and whoever comes back with the last cursor misses nothing.
//
// A Feed is used by one goroutine and must be closed.
type Feed struct {
	s      *Service
	caller chat.Caller
	cursor chat.EventID
	news   chan struct{} // holds one
	ctx    context.Context
	stop   context.CancelCauseFunc // with what Next is to answer
}

// Follow opens a feed that begins after cursor, or at the present when cursor
// is nil. It ends with ctx, with the caller's credential and with the service.
func (s *Service) Follow(ctx context.Context, c chat.Caller, cursor *chat.EventID) (*Feed, error) {
	f := &Feed{s: s, caller: c, news: make(chan struct{}, 1)}
	f.ctx, f.stop = context.WithCancelCause(ctx)
	if !c.ExpiresAt.IsZero() {
		t := time.AfterFunc(c.ExpiresAt.Sub(s.now()), func() { f.stop(chat.ErrCredential) })
		context.AfterFunc(f.ctx, func() { t.Stop() })
	}
	if err := s.live.add(f); err != nil {
		f.stop(err)
		return nil, err
	}
	// Only now: a credential that ended before add was not ended by the hub.
	err := f.Check()
	if err == nil && cursor != nil {
		f.cursor = *cursor
	} else if err == nil {
		f.cursor, err = s.db.Cursor(ctx)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Cursor is the present: a feed followed from it tells what happens next.
func (s *Service) Cursor(ctx context.Context) (chat.EventID, error) { return s.db.Cursor(ctx) }

// Cursor is where the feed is.
func (f *Feed) Cursor() chat.EventID { return f.cursor }

// Check reports, as chat.ErrCredential, that the feed's credential ended.
func (f *Feed) Check() error {
	if err := f.s.db.Valid(f.ctx, f.caller.Credential, f.s.now()); err != nil {
		return f.because(err) // ended while asking: the question was cut off
	}
	return nil
}

// Next waits for events as long as ctx and the feed last, and moves the
// cursor behind them. At most chat.ListMax events come at once. A feed whose
// cursor was too old says so once and goes on from the present.
func (f *Feed) Next(ctx context.Context) (chat.Feed, error) {
	for {
		got, err := f.s.db.Events(f.ctx, f.caller.Account.ID, f.cursor)
		if err != nil {
			return chat.Feed{}, f.because(err)
		}
		f.cursor = got.Cursor
		if got.TooOld || len(got.Events) > 0 {
			return got, nil
		}
		select {
		case <-f.news:
		case <-ctx.Done():
			return chat.Feed{}, ctx.Err()
		case <-f.ctx.Done():
			return chat.Feed{}, f.because(f.ctx.Err())
		}
	}
}

// because is why the feed ended, or err when it did not.
func (f *Feed) because(err error) error {
	if cause := context.Cause(f.ctx); cause != nil {
		return cause
	}
	return err
}

// Close ends the feed.
func (f *Feed) Close() {
	f.stop(nil)
	f.s.live.remove(f)
}

// hub knows the feeds that are open.
type hub struct {
	mu     sync.Mutex
	feeds  map[chat.AccountID]map[*Feed]struct{} // guarded by mu
	closed bool                                  // guarded by mu
}

var errStopping = chat.Errorf(chat.Unavailable, "The service is stopping")

func newHub() *hub { return &hub{feeds: map[chat.AccountID]map[*Feed]struct{}{}} }

func (h *hub) add(f *Feed) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	of := h.feeds[f.caller.Account.ID]
	switch {
	case h.closed:
		return errStopping
	case len(of) >= feedsMax:
		return chat.Errorf(chat.Unavailable, "An account follows at most %d feeds at once", feedsMax)
	case of == nil:
		of = map[*Feed]struct{}{}
		h.feeds[f.caller.Account.ID] = of
	}
	of[f] = struct{}{}
	return nil
}

func (h *hub) remove(f *Feed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	of := h.feeds[f.caller.Account.ID]
	delete(of, f)
	if len(of) == 0 {
		delete(h.feeds, f.caller.Account.ID)
	}
}

// wake tells the feeds of accounts that there may be more.
func (h *hub) wake(ids []chat.AccountID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		for f := range h.feeds[id] {
			select {
			case f.news <- struct{}{}:
			default: // told already
			}
		}
	}
}

// end ends the feeds that which picks, because their credential did.
func (h *hub) end(which func(*Feed) bool) { h.stop(which, chat.ErrCredential) }

func (h *hub) stop(which func(*Feed) bool, cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, of := range h.feeds {
		for f := range of {
			if which(f) {
				f.stop(cause)
			}
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.stop(func(*Feed) bool { return true }, errStopping)
}
