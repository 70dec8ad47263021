package mail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/kidoban/kidoban/gateway/mail"
	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
	"github.com/kidoban/kidoban/policies"
)

// databases runs test on SQLite and on PostgreSQL.
func databases(t *testing.T, test func(*testing.T, *storage.DB)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			o := storage.Options{DataDir: filepath.Join(t.TempDir(), "data"), Log: slog.New(slog.DiscardHandler)}
			if kind == "postgres" {
				o.Database, o.Node = storagetest.Postgres(t), "node-1"
			}
			db, err := storage.Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			test(t, db)
		})
	}
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// pass moves the time while nothing is under way: no lease runs out in a moment.
func (c *clock) pass(s map[policies.NoticeState]int, d time.Duration) {
	if s[policies.Leased]+s[policies.Uncertain] == 0 {
		c.add(d)
	}
}

// node is an outbox with its deliverer, as one process has them.
type node struct {
	t       *testing.T
	outbox  *policies.Outbox
	deliver *outbox.Deliverer
	clock   *clock
	log     lockedBuffer
	stop    func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// start runs a node that hands in through m; store, where it is not nil, stands
// between the deliverer and the outbox.
func start(t *testing.T, db *storage.DB, m *mail.Mailer, c *clock, store func(outbox.Store) outbox.Store) *node {
	t.Helper()
	o, err := policies.NewOutbox(db.SQL(), db.Dialect())
	if err != nil {
		t.Fatal(err)
	}
	limited, err := mail.NewLimited(m, o, db.SQL(), db.Dialect())
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, outbox: o, clock: c}
	from := outbox.Store(o)
	if store != nil {
		from = store(o)
	}
	n.deliver = outbox.New(outbox.Config{Store: from, Owner: "node", Log: slog.New(slog.NewTextHandler(&n.log, nil)), Now: c.read, Poll: 2 * time.Millisecond})
	n.deliver.UseChannels(map[string]outbox.Channel{mail.Channel: {Sender: limited, Lanes: 4}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.deliver.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func (n *node) put(key, template, to, language string) {
	n.t.Helper()
	p := notice(template, language)
	p.Key, p.To = key, to
	if _, err := n.outbox.Put(n.t.Context(), p, n.clock.read()); err != nil {
		n.t.Fatal(err)
	}
	n.deliver.Kick()
}

// until waits for counts of states.
func (n *node) until(what string, ok func(map[policies.NoticeState]int) bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := n.outbox.Counts(ctx)
		if err == nil && ok(got) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.t.Fatalf("%s: %v, %v after 30 s; log:\n%s", what, got, err, n.log.String())
		}
	}
}

func sent(number int) func(map[policies.NoticeState]int) bool {
	return func(c map[policies.NoticeState]int) bool { return c[policies.Sent] == number }
}

// The whole way over a real server: what is tried again, what is given up, and what a
// crash between the server's answer and our commit leaves behind.
func TestDelivery(t *testing.T) {
	databases(t, func(t *testing.T, db *storage.DB) {
		seen := make(map[string]int)
		in := receive(t, func(in *inbox, _ *smtp.Server) {
			in.rcpt = func(to string) error {
				seen[to]++
				switch {
				case strings.HasPrefix(to, "nobody@"):
					return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no " + to}
				case strings.HasPrefix(to, "grey@") && seen[to] < 3:
					return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "later, " + to}
				}
				return nil
			}
		})
		c := &clock{now: monday}
		n := start(t, db, mailer(t, to(in, "smtp")), c, nil)
		n.put("1", "device.new", "ann@example.com", "en")
		n.put("2", "device.new", "nobody@example.com", "ja")
		n.put("3", "device.new", "grey@example.com", "ja")
		n.put("4", "device.new", "山田@例え.jp", "ja")
		n.put("5", "device.new", "a <b@example.com>", "ja")
		n.until("delivery", func(s map[policies.NoticeState]int) bool {
			c.pass(s, 2*time.Second)
			return s[policies.Sent] == 3 && s[policies.GivenUp] == 2
		})
		n.stop()
		if s := n.deliver.Status(); len(s.Failing) > 0 || s.Sent != 3 || s.GivenUp != 2 {
			t.Errorf("status: %+v", s)
		}
		for _, letter := range in.list() {
			if l := parsed(t, letter.raw); l.header.Get("To") == "" || !strings.HasSuffix(l.header.Get("Message-Id"), "@example.com>") {
				t.Errorf("header: %v", l.header)
			}
		}
		if n := len(in.list()); n != 3 || seen["nobody@example.com"] != 1 || seen["grey@example.com"] != 3 {
			t.Errorf("%d letters, asked %v", n, seen)
		}

		// A node dies after the server has the message.
		dying := &dead{}
		n = start(t, db, mailer(t, to(in, "smtp")), c, func(s outbox.Store) outbox.Store { dying.Store = s; return dying })
		n.put("6", "factor.removed", "ben@example.com", "en")
		n.until("its end", func(map[policies.NoticeState]int) bool { return dying.reached() })
		n.stop()
		c.add(10 * time.Minute)
		n = start(t, db, mailer(t, to(in, "smtp")), c, nil)
		n.until("the next node", sent(4))
		n.stop()
		var twice []received
		for _, l := range in.list() {
			if l.to == "ben@example.com" {
				twice = append(twice, l)
			}
		}
		if len(twice) != 2 {
			t.Fatalf("%d letters, want 2", len(twice))
		}
		one, two := parsed(t, twice[0].raw), parsed(t, twice[1].raw)
		if one.header.Get("Message-Id") != two.header.Get("Message-Id") || one.header.Get("Date") != two.header.Get("Date") {
			t.Errorf("headers differ: %v and %v", one.header, two.header)
		}
		const mark = "You may have received this message already"
		if strings.Contains(one.text, mark) || !strings.Contains(two.text, mark) {
			t.Errorf("the second one is not marked, or the first is:\n%s", two.text)
		}
	})
}

// dead is a store whose process ended: nothing is settled any more.
type dead struct {
	outbox.Store
	mu    sync.Mutex
	after bool
}

func (d *dead) Settle(context.Context, string, policies.NoticeState, time.Time, time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after = true
	return errors.New("the process is gone")
}

func (d *dead) reached() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.after }

// A server that is away is left alone, shows in the status, and has everything when
// it is back; logs have neither its password nor whose mail it is.
func TestAServerThatIsAway(t *testing.T) {
	databases(t, func(t *testing.T, db *storage.DB) {
		in := receive(t, nil)
		c := &clock{now: monday}
		away := mailer(t, func(m *mail.Config) { m.Server = "smtp://gate%40example.com:p%40ss%2Fword%3A%204711@" + closed(t) })
		n := start(t, db, away, c, nil)
		for i := range 10 {
			n.put(fmt.Sprint(i), "device.new", fmt.Sprintf("user%d@example.com", i), "ja")
		}
		n.until("failures", func(map[policies.NoticeState]int) bool {
			s := n.deliver.Status()
			return len(s.Failing) == 1 && s.Failing[0].Channel == "mail" && s.Failing[0].To == "" && s.Failing[0].Failures >= 5 && s.Failing[0].Why == "connection refused" && s.Failing[0].Until.After(c.read())
		})
		n.stop()
		for _, secret := range []string{"p@ss", "p%40ss", "gate@", "gate%40", "user1@"} {
			if strings.Contains(n.log.String(), secret) {
				t.Errorf("the log has %s:\n%s", secret, n.log.String())
			}
		}
		n = start(t, db, mailer(t, to(in, "smtp")), c, nil)
		n.until("the mail", func(s map[policies.NoticeState]int) bool {
			c.pass(s, time.Second)
			return s[policies.Sent] == 10
		})
		if got := len(in.list()); got != 10 {
			t.Errorf("%d letters, want 10", got)
		}
	})
}

// TestMailBombing shows that nobody gets more than the limit, over two nodes, and is
// told how many there were.
func TestMailBombing(t *testing.T) {
	databases(t, func(t *testing.T, db *storage.DB) {
		in := receive(t, nil)
		c := &clock{now: monday.Truncate(time.Hour)}
		m := mailer(t, to(in, "smtp"))
		a, b := start(t, db, m, c, nil), start(t, db, m, c, nil)
		const many = 40
		for i := range many {
			who := "ann@example.com"
			if i%2 == 1 {
				who = "ANN@EXAMPLE.COM" // the same mailbox
			}
			a.put(fmt.Sprint(i), "confirmation.code", who, "ja")
		}
		a.put("ben", "confirmation.code", "ben@example.com", "en")
		a.put("other", "device.new", "ann@example.com", "en")
		most := mail.Most("confirmation.code")
		a.until("delivery", func(s map[policies.NoticeState]int) bool {
			c.pass(s, 100*time.Millisecond) // what found a queue full comes again
			return s[policies.Sent] == most+2 && s[policies.GivenUp] == many-most && s[policies.Pending] == 1
		})
		if got := a.deliver.Status().Withheld + b.deliver.Status().Withheld; got != int64(many-most) {
			t.Errorf("%d are said to be withheld, want %d", got, many-most)
		}
		if strings.Contains(a.log.String()+b.log.String(), "given up") {
			t.Errorf("the log complains of what is on purpose:\n%s%s", a.log.String(), b.log.String())
		}
		c.add(time.Hour + 2*time.Minute)
		a.put("later", "confirmation.code", "ann@example.com", "ja")
		a.until("the digest", func(s map[policies.NoticeState]int) bool {
			c.pass(s, 100*time.Millisecond)
			return s[policies.Sent] == most+4
		})
		codes, digests := 0, 0
		for _, l := range in.list() {
			if !strings.EqualFold(l.to, "ann@example.com") {
				continue
			}
			switch got := parsed(t, l.raw); got.header.Get("X-Kidoban-Notice") {
			case "confirmation.code":
				codes++
			case "notices.more":
				digests++
				if want := fmt.Sprintf("送らなかったもの: ログイン用の確認コード：%d件", many-most); !strings.Contains(got.text, want) {
					t.Errorf("no %q in\n%s", want, got.text)
				}
			}
		}
		if codes != most+1 || digests != 1 {
			t.Errorf("%d codes and %d digests, want %d and 1", codes, digests, most+1)
		}
	})
}

// What failed does not count.
func TestFailuresLeaveTheLimit(t *testing.T) {
	databases(t, func(t *testing.T, db *storage.DB) {
		most := mail.Most("enrolment.link")
		failing := most + 1
		in := receive(t, func(in *inbox, _ *smtp.Server) {
			in.rcpt = func(string) error {
				if failing--; failing >= 0 {
					return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "later"}
				}
				return nil
			}
		})
		c := &clock{now: monday.Truncate(time.Hour)}
		n := start(t, db, mailer(t, to(in, "smtp")), c, nil)
		n.put("1", "enrolment.link", "ann@example.com", "en")
		n.until("delivery", func(s map[policies.NoticeState]int) bool {
			c.pass(s, 10*time.Second)
			return s[policies.Sent] == 1
		})
		if letters := in.list(); len(letters) != 1 || parsed(t, letters[0].raw).header.Get("X-Kidoban-Notice") != "enrolment.link" || n.deliver.Status().Withheld > 0 {
			t.Errorf("%d letters, %d withheld; want the one that was put", len(letters), n.deliver.Status().Withheld)
		}
	})
}
