package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/chatcore/chat"
	"github.com/kidoban/kidoban/chatcore/store"
)

var now = time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC)

// fixture is a store with two companies: the first has three people in one
// room, the second has one person in none.
type fixture struct {
	*store.DB
	ann, ben, cat, dan chat.AccountID
	room               chat.RoomID
}

func open(t *testing.T) fixture {
	t.Helper()
	path := filepath.Join(t.TempDir(), "50% 50?.db") // a name a URL would mangle
	db, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("data file: %v, %v", info, err)
	}
	person := func(name string) store.LoadAccount {
		return store.LoadAccount{Account: chat.Account{Email: name + "@one.example", Name: name, Language: "en", TimeZone: "UTC"}, Password: "hash of " + name}
	}
	one := store.LoadOrganization{Name: "One", Accounts: []store.LoadAccount{person("ann"), person("ben"), person("cat")},
		Rooms: []store.LoadRoom{{Name: "All", Members: []int{0, 1, 2}}}}
	two := store.LoadOrganization{Name: "Two", Accounts: []store.LoadAccount{person("dan")}}
	l := store.Load{Organizations: []store.LoadOrganization{one, two}}
	if err := db.Load(t.Context(), l, now); err != nil {
		t.Fatal(err)
	}
	f := fixture{DB: db, ann: one.Accounts[0].Account.ID, ben: one.Accounts[1].Account.ID, cat: one.Accounts[2].Account.ID, dan: two.Accounts[0].Account.ID}
	rooms, err := db.Rooms(t.Context(), f.ann)
	if err != nil {
		t.Fatal(err)
	}
	f.room = rooms[0].ID
	return f
}

func (f fixture) post(t *testing.T, who chat.AccountID, body string) chat.MessageID {
	t.Helper()
	id, err := f.AddMessage(t.Context(), who, f.room, body, false, now)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// want reports an err of another kind than wanted; zero is no error.
func want(t *testing.T, what string, err error, kind chat.Kind) {
	t.Helper()
	if kind == chat.Internal && err != nil || kind != chat.Internal && chat.KindOf(err) != kind {
		t.Errorf("%s: %v, want kind %d", what, err, kind)
	}
}

func TestLoadOnce(t *testing.T) {
	f := open(t)
	want(t, "a second world", f.Load(t.Context(), store.Load{}, now), chat.Conflict)
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chat.db")
	for range 2 {
		db, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSessions(t *testing.T) {
	f, ctx := open(t), t.Context()
	s := chat.Session{Hash: chat.SecretHash{1}, Account: f.ann, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	want(t, "login against a replaced hash", f.AddSession(ctx, s, "older hash"), chat.Unauthenticated)
	want(t, "login", f.AddSession(ctx, s, "hash of ann"), chat.Internal)
	c, err := f.CallerBySession(ctx, s.Hash, now)
	if err != nil || c.Account.ID != f.ann || c.Account.OrganizationName != "One" || !c.ExpiresAt.Equal(s.ExpiresAt) {
		t.Errorf("caller %+v, %v", c, err)
	}
	_, err = f.CallerBySession(ctx, s.Hash, s.ExpiresAt)
	want(t, "expired", err, chat.Unauthenticated)
	want(t, "expired credential", f.Valid(ctx, c.Credential, s.ExpiresAt), chat.Unauthenticated)
	want(t, "valid credential", f.Valid(ctx, c.Credential, now), chat.Internal)

	other := s
	other.Hash = chat.SecretHash{2}
	want(t, "second login", f.AddSession(ctx, other, "hash of ann"), chat.Internal)
	want(t, "change from an older hash", f.ChangePassword(ctx, f.ann, "older hash", "new hash", s.Hash), chat.Forbidden)
	want(t, "change", f.ChangePassword(ctx, f.ann, "hash of ann", "new hash", s.Hash), chat.Internal)
	_, err = f.CallerBySession(ctx, s.Hash, now)
	want(t, "the session that changed it", err, chat.Internal)
	_, err = f.CallerBySession(ctx, other.Hash, now)
	want(t, "the other session", err, chat.Unauthenticated)

	// The fifty-first session ends the oldest.
	for i := range byte(60) {
		n := chat.Session{Hash: chat.SecretHash{9, i}, Account: f.ben, CreatedAt: now.Add(time.Duration(i) * time.Second), ExpiresAt: now.Add(time.Hour)}
		want(t, "many", f.AddSession(ctx, n, "hash of ben"), chat.Internal)
	}
	_, err = f.CallerBySession(ctx, chat.SecretHash{9, 9}, now)
	want(t, "the tenth of sixty", err, chat.Unauthenticated)
	_, err = f.CallerBySession(ctx, chat.SecretHash{9, 10}, now)
	want(t, "the eleventh of sixty", err, chat.Internal)
}

func TestResets(t *testing.T) {
	f, ctx := open(t), t.Context()
	expires := now.Add(time.Hour)
	for i := range byte(7) {
		want(t, "link", f.AddReset(ctx, f.ann, chat.SecretHash{i}, now.Add(time.Duration(i)*time.Second), expires), chat.Internal)
	}
	want(t, "the oldest of seven", f.ResetValid(ctx, chat.SecretHash{0}, now), chat.Gone)
	want(t, "the latest", f.ResetValid(ctx, chat.SecretHash{6}, now), chat.Internal)
	want(t, "the latest, late", f.ResetValid(ctx, chat.SecretHash{6}, expires), chat.Gone)
	want(t, "session", f.AddSession(ctx, chat.Session{Hash: chat.SecretHash{1}, Account: f.ann, CreatedAt: now, ExpiresAt: expires}, "hash of ann"), chat.Internal)

	// However many use one link at once, it works for one.
	var used sync.Map
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			_, err := f.ResetPassword(ctx, chat.SecretHash{6}, fmt.Sprint("hash ", i), now)
			if err == nil {
				used.Store(i, true)
			} else if !errors.Is(err, chat.ErrResetGone) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	n := 0
	used.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("the link worked %d times", n)
	}
	want(t, "another link of the account", f.ResetValid(ctx, chat.SecretHash{5}, now), chat.Gone)
	_, err := f.CallerBySession(ctx, chat.SecretHash{1}, now)
	want(t, "its session", err, chat.Unauthenticated)
}

func TestTokens(t *testing.T) {
	f, ctx := open(t), t.Context()
	var last chat.TokenID
	for i := range byte(chat.TokensMax) {
		var err error
		last, err = f.AddToken(ctx, chat.Token{Account: f.ann, Name: "bot", CreatedAt: now}, chat.SecretHash{i})
		want(t, "token", err, chat.Internal)
	}
	_, err := f.AddToken(ctx, chat.Token{Account: f.ann, Name: "one more", CreatedAt: now}, chat.SecretHash{99})
	want(t, "one more", err, chat.Conflict)
	want(t, "somebody else's", f.DeleteToken(ctx, f.ben, last), chat.NotFound)
	want(t, "own", f.DeleteToken(ctx, f.ann, last), chat.Internal)
	_, err = f.CallerByToken(ctx, chat.SecretHash{chat.TokensMax - 1})
	want(t, "deleted", err, chat.Unauthenticated)
}

func TestRoomsAreForMembers(t *testing.T) {
	f, ctx := open(t), t.Context()
	id := f.post(t, f.ann, "for us")
	_, err := f.Room(ctx, f.dan, f.room)
	want(t, "room", err, chat.NotFound)
	_, err = f.Members(ctx, f.dan, f.room)
	want(t, "members", err, chat.NotFound)
	_, err = f.Messages(ctx, f.dan, f.room, 0)
	want(t, "messages", err, chat.NotFound)
	_, err = f.Fetch(ctx, f.dan, f.room, true)
	want(t, "fetch", err, chat.NotFound)
	_, err = f.Message(ctx, f.dan, f.room, id)
	want(t, "message", err, chat.NotFound)
	_, err = f.AddMessage(ctx, f.dan, f.room, "hi", false, now)
	want(t, "post", err, chat.NotFound)
	want(t, "read", f.Read(ctx, f.dan, f.room, 0), chat.NotFound)
	feed, err := f.Events(ctx, f.dan, 0)
	if err != nil || len(feed.Events) > 0 {
		t.Errorf("events %+v, %v", feed, err)
	}
}

func TestMembership(t *testing.T) {
	f, ctx := open(t), t.Context()
	admin := chat.Membership{Admins: []chat.AccountID{f.ann}, ReadOnly: []chat.AccountID{f.ben}}
	_, err := f.SetMembers(ctx, f.ben, f.room, admin, now)
	want(t, "by a member", err, chat.Forbidden)
	_, err = f.SetMembers(ctx, f.ann, f.room, chat.Membership{Admins: []chat.AccountID{f.ann, f.dan}}, now)
	want(t, "with a stranger", err, chat.Invalid)
	touched, err := f.SetMembers(ctx, f.ann, f.room, admin, now)
	want(t, "by an administrator", err, chat.Internal)
	if len(touched) != 5 { // three before and two now
		t.Errorf("touched %v", touched)
	}
	_, err = f.AddMessage(ctx, f.ben, f.room, "may I?", false, now)
	want(t, "a reader's post", err, chat.Forbidden)
	_, err = f.Room(ctx, f.cat, f.room)
	want(t, "who was removed", err, chat.NotFound)

	my, err := f.AccountRoom(t, f.ann)
	want(t, "my room", err, chat.Internal)
	_, err = f.SetMembers(ctx, f.ann, my, admin, now)
	want(t, "members of my room", err, chat.Forbidden)
}

// AccountRoom is an account's own room.
func (f fixture) AccountRoom(t *testing.T, id chat.AccountID) (chat.RoomID, error) {
	rooms, err := f.Rooms(t.Context(), id)
	for _, r := range rooms {
		if r.Type == chat.My {
			return r.ID, nil
		}
	}
	return 0, errors.Join(err, errors.New("no room"))
}

func TestUnread(t *testing.T) {
	f, ctx := open(t), t.Context()
	look := func(who chat.AccountID, unread, mentions int) {
		t.Helper()
		r, err := f.Room(ctx, who, f.room)
		if err != nil {
			t.Fatal(err)
		}
		if r.Unread != unread || r.Mentions != mentions {
			t.Errorf("%d unread and %d mentions, want %d and %d", r.Unread, r.Mentions, unread, mentions)
		}
	}
	first := f.post(t, f.ann, "hello")
	f.post(t, f.ann, fmt.Sprintf("[To:%d] you", f.ben))
	f.post(t, f.ann, "[toall] everybody")
	look(f.ann, 0, 0)
	look(f.ben, 3, 2)
	look(f.cat, 3, 1)
	want(t, "read one", f.Read(ctx, f.ben, f.room, first), chat.Internal)
	look(f.ben, 2, 2)
	want(t, "read all", f.Read(ctx, f.ben, f.room, 0), chat.Internal)
	look(f.ben, 0, 0)
	want(t, "read an older one", f.Read(ctx, f.ben, f.room, first), chat.Internal)
	look(f.ben, 0, 0)
	want(t, "read no message", f.Read(ctx, f.ben, f.room, 9999), chat.NotFound)
	if _, err := f.AddMessage(ctx, f.ann, f.room, "to do", true, now); err != nil {
		t.Fatal(err)
	}
	look(f.ann, 1, 0)
}

func TestFetch(t *testing.T) {
	f, ctx := open(t), t.Context()
	bodies := func(force bool) (out []string) {
		t.Helper()
		ms, err := f.Fetch(ctx, f.ben, f.room, force)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			out = append(out, m.Body)
		}
		return out
	}
	f.post(t, f.ann, "one")
	f.post(t, f.ann, "two")
	for i, want := range [][]string{{"one", "two"}, nil} {
		if d := cmp.Diff(want, bodies(false)); d != "" {
			t.Errorf("fetch %d: %s", i, d)
		}
	}
	f.post(t, f.ann, "three")
	if d := cmp.Diff([]string{"three"}, bodies(false)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"one", "two", "three"}, bodies(true)); d != "" {
		t.Error(d)
	}
	for range 120 {
		f.post(t, f.ann, "again")
	}
	if n := len(bodies(true)); n != chat.ListMax {
		t.Errorf("%d messages at once", n)
	}
}

// TestEventsResume reads the feed in pieces of any size and misses nothing.
func TestEventsResume(t *testing.T) {
	f, ctx := open(t), t.Context()
	var posted, told []chat.MessageID
	for i := range 230 {
		posted = append(posted, f.post(t, f.ann, fmt.Sprint(i)))
	}
	var cursor chat.EventID
	for {
		feed, err := f.Events(ctx, f.ben, cursor)
		if err != nil || feed.TooOld || len(feed.Events) > chat.ListMax {
			t.Fatalf("%+v, %v", feed, err)
		}
		if len(feed.Events) == 0 {
			break
		}
		for _, e := range feed.Events {
			told = append(told, e.Message.ID)
		}
		cursor = feed.Cursor
	}
	if d := cmp.Diff(posted, told); d != "" {
		t.Error(d)
	}
}

func TestEventsTooOld(t *testing.T) {
	f, ctx := open(t), t.Context()
	f.KeepEvents(10)
	for range 100 {
		f.post(t, f.ann, "x")
	}
	for cursor, tooOld := range map[chat.EventID]bool{0: true, 89: true, 90: false, 100: false, 101: true} {
		feed, err := f.Events(ctx, f.ben, cursor)
		if err != nil || feed.TooOld != tooOld || feed.Cursor != 100 {
			t.Errorf("cursor %d: %+v, %v", cursor, feed, err)
		}
	}
}

func TestOutboxForgets(t *testing.T) {
	f, ctx := open(t), t.Context()
	for _, at := range []time.Time{now, now.Add(2 * time.Hour)} {
		want(t, "send", f.Send(ctx, chat.Mail{To: "a@one.example", Subject: at.String(), CreatedAt: at, ExpiresAt: at.Add(time.Hour)}), chat.Internal)
	}
	mails, err := f.Outbox(ctx)
	if err != nil || len(mails) != 1 || !mails[0].CreatedAt.Equal(now.Add(2*time.Hour)) {
		t.Errorf("%+v, %v", mails, err)
	}
}
