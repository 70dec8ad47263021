package chatcore_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/chatcore/chat"
	"github.com/kidoban/kidoban/chatcore/password"
	"github.com/kidoban/kidoban/chatcore/web"
)

var cheap = password.Cost{Memory: 64, Time: 1, Threads: 1}

// clock is a clock that tests turn.
type clock struct {
	mu sync.Mutex
	t  time.Time // guarded by mu
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) turn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func open(t *testing.T, c chatcore.Config) (*chatcore.Service, []chatcore.SeededAccount) {
	t.Helper()
	if c.Path == "" {
		c.Path = filepath.Join(t.TempDir(), "chat.db")
	}
	if c.PasswordCost == (password.Cost{}) {
		c.PasswordCost = cheap
	}
	svc, err := chatcore.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	})
	accounts, err := svc.Seed(t.Context(), chatcore.SeedOptions{Organizations: 2, Accounts: 20, Seed: 3})
	if err != nil && chat.KindOf(err) != chat.Conflict {
		t.Fatal(err)
	}
	return svc, accounts
}

func caller(t *testing.T, svc *chatcore.Service, a chatcore.SeededAccount) (chat.Caller, string) {
	t.Helper()
	_, secret, _, err := svc.Login(t.Context(), a.Email, a.Password)
	if err != nil {
		t.Fatal(err)
	}
	c, err := svc.CallerBySession(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	return c, secret
}

func TestSessionExpires(t *testing.T) {
	clock := &clock{t: time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC)}
	svc, accounts := open(t, chatcore.Config{Now: clock.now, SessionLifetime: time.Hour})
	_, secret := caller(t, svc, accounts[0])
	clock.turn(59 * time.Minute)
	if _, err := svc.CallerBySession(t.Context(), secret); err != nil {
		t.Errorf("before the end: %v", err)
	}
	clock.turn(time.Minute)
	if _, err := svc.CallerBySession(t.Context(), secret); !errors.Is(err, chat.ErrCredential) {
		t.Errorf("at the end: %v", err)
	}
}

// TestRehash checks that a login stores the password at today's cost.
func TestRehash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chat.db")
	svc, accounts := open(t, chatcore.Config{Path: path})
	if err := svc.Close(); err != nil {
		t.Fatal(err)
	}
	dear, _ := open(t, chatcore.Config{Path: path, PasswordCost: password.Cost{Memory: 128, Time: 2, Threads: 1}})
	// Several at once race to store theirs, and each is let in.
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, _, _, err := dear.Login(t.Context(), accounts[1].Email, accounts[1].Password); err != nil {
				t.Errorf("one of several logins: %v", err)
			}
		})
	}
	all.Wait()
	for range 2 {
		caller(t, dear, accounts[0])
		hash, err := dear.StoredHash(t.Context(), accounts[0].ID)
		if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=128,t=2,p=1$") {
			t.Errorf("stored %.30s, %v", hash, err)
		}
	}
}

// TestFeedEndsWithTheSession follows two sessions and logs one out.
func TestFeedEndsWithTheSession(t *testing.T) {
	svc, accounts := open(t, chatcore.Config{})
	one, _ := caller(t, svc, accounts[0])
	two, _ := caller(t, svc, accounts[0])
	feeds := map[string]*chatcore.Feed{}
	for name, c := range map[string]chat.Caller{"one": one, "two": two} {
		f, err := svc.Follow(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		feeds[name] = f
	}
	if err := svc.Logout(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if err := feeds["one"].Check(); !errors.Is(err, chat.ErrCredential) {
		t.Errorf("asked after the logout: %v", err)
	}
	if _, err := feeds["one"].Next(t.Context()); !errors.Is(err, chat.ErrCredential) {
		t.Errorf("after the logout: %v", err)
	}
	if _, err := svc.Follow(t.Context(), one, nil); !errors.Is(err, chat.ErrCredential) {
		t.Errorf("a new feed after the logout: %v", err)
	}
	if _, err := svc.Post(t.Context(), two, two.Account.MyRoom, "note", false); err != nil {
		t.Fatal(err)
	}
	got, err := feeds["two"].Next(t.Context())
	if err != nil || len(got.Events) != 1 || got.Events[0].Message.Body != "note" {
		t.Errorf("the other session: %+v, %v", got, err)
	}
	svc.EndLive()
	if _, err := feeds["two"].Next(t.Context()); chat.KindOf(err) != chat.Unavailable {
		t.Errorf("after the end: %v", err)
	}
}

func TestFeedsAreBounded(t *testing.T) {
	svc, accounts := open(t, chatcore.Config{})
	c, _ := caller(t, svc, accounts[0])
	for i := range 65 {
		f, err := svc.Follow(t.Context(), c, nil)
		switch {
		case i < 64 && err != nil:
			t.Fatal(err)
		case i == 64 && chat.KindOf(err) != chat.Unavailable:
			t.Errorf("the sixty-fifth: %v", err)
		case err == nil:
			defer f.Close()
		}
	}
}

func TestSeedExport(t *testing.T) {
	_, accounts := open(t, chatcore.Config{})
	_, again := open(t, chatcore.Config{})
	if d := cmp.Diff(accounts, again, cmpopts.EquateComparable(accounts[0].OfficeNetwork)); d != "" {
		t.Errorf("two worlds of one seed differ: %s", d)
	}
	var b bytes.Buffer
	if err := chatcore.WriteAccounts(&b, accounts); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != 21 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if d := cmp.Diff([]string{"organization", "office_network", "account_id", "name", "email", "password", "language"}, rows[0]); d != "" {
		t.Error(d)
	}
}

// TestServe is the whole of what another program does to run the service.
func TestServe(t *testing.T) {
	svc, accounts := open(t, chatcore.Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- web.Serve(ctx, l, svc, web.Options{}) }()
	base := "http://" + l.Addr().String()
	_, secret := caller(t, svc, accounts[0])
	r, err := http.NewRequestWithContext(t.Context(), "GET", base+"/v2/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", web.SessionCookie+"="+secret)
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("stopped with %v", err)
	}
	if _, err := http.Get(base + "/healthz"); err == nil {
		t.Error("still serving")
	}
}
