//go:build linux

package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/rules"
)

// mix is what one process has at once.
type mix struct {
	sources, sessions, decisions int
	used                         int // of the sessions, by requests of a run
}

var (
	million   = mix{1_000_000, 1_000_000, 1_000_000, 150_000}
	shortMix  = mix{20_000, 20_000, 20_000, 5_000}
	remembers = "detectors.snapshot" // file of a data directory
)

const (
	// mostMemory is what the process may have, everything included.
	mostMemory = 1 << 30
	// goMemory is its GOMEMLIMIT. What Go does not count, the program's own pages and
	// SQLite's, is 140 MiB, and at full speed the collector is late by some 40.
	goMemory = 850 << 20
)

// BenchmarkMemory runs the gateway with a million of each of what it keeps, under
// GOMEMLIMIT, and prints the memory of its process and what its heap is made of.
func BenchmarkMemory(b *testing.B) {
	m := million
	if testing.Short() {
		m = shortMix
	}
	where, err := pickCores()
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	p := &proxy{name: "memory", guarded: true, limits: true, dir: filepath.Join(dir, "data")}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		b.Fatal(err)
	}
	binary := build(b, dir)
	now := time.Now()
	for _, part := range []struct {
		name string
		fill func() error
	}{
		{"decisions", func() error { return seed(b.Context(), p.dir, m.decisions, now) }},
		{"sessions", func() error { return seedSessions(b.Context(), p.dir, m.sessions, now) }},
		{"sources", func() error { return seedSources(p.dir, m.sources, now) }},
	} {
		begun := time.Now()
		if err := part.fill(); err != nil {
			b.Fatalf("seeding %s: %v", part.name, err)
		}
		b.Logf("%s seeded in %v", part.name, time.Since(begun).Round(time.Millisecond))
	}
	p.address, p.admin = freeAddress(b), freeAddress(b)
	config := filepath.Join(p.dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(p.caddyfile(startBackend(b, where.rest))), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(binary, "run", "--config", config, "--adapter", "caddyfile")
	cmd.Env = []string{"GOMEMLIMIT=" + strconv.Itoa(goMemory)}
	p.process = start(b, p.name, p.dir, where.proxy, cmd)
	p.ready(b)
	p.sample(b, "started")

	for b.Loop() {
		begun, err := p.cpu()
		if err != nil {
			b.Fatal(err)
		}
		if err := p.useSessions(m); err != nil {
			b.Fatalf("%v: %s", err, p.said())
		}
		spent, err := p.cpu()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64((spent-begun).Microseconds())/float64(m.used), "first-µs/req")
		// Once more, with those in memory.
		if err := p.useSessions(mix{sessions: m.used, used: m.used}); err != nil {
			b.Fatalf("%v: %s", err, p.said())
		}
		again, err := p.cpu()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64((again-spent).Microseconds())/float64(m.used), "again-µs/req")
	}
	resident, peak := p.sample(b, "in use")
	heap := filepath.Join(dir, "heap")
	if err := fetch(b.Context(), "http://"+p.admin+"/debug/pprof/heap?debug=1&gc=1", heap); err != nil {
		b.Fatal(err)
	}
	text, err := os.ReadFile(heap)
	if err != nil {
		b.Fatal(err)
	}
	parts, err := heapParts(string(text))
	if err != nil {
		b.Fatal(err)
	}
	total := 0.0
	var out bytes.Buffer
	fmt.Fprintf(&out, "\n| in use on the heap | MiB |\n|---|---:|\n")
	for _, part := range parts {
		total += part.bytes
		fmt.Fprintf(&out, "| %s | %.0f |\n", part.name, part.bytes/(1<<20))
	}
	fmt.Fprintf(&out, "| all | %.0f |\n\nThe process has %d MiB, at most %d MiB; GOMEMLIMIT is %d MiB.\n\n", total/(1<<20), resident>>20, peak>>20, goMemory>>20)
	io.Copy(os.Stdout, &out)
	if peak > mostMemory {
		b.Errorf("the process had %d MiB, want at most %d", peak>>20, mostMemory>>20)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(resident)/(1<<20), "resident-MiB")
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
	b.ReportMetric(total/(1<<20), "heap-MiB")
}

// sample is the memory of the process now and at its highest, in bytes.
func (p *proxy) sample(b *testing.B, when string) (resident, peak int64) {
	b.Helper()
	var err error
	if resident, err = p.status("VmRSS"); err != nil {
		b.Fatal(err)
	}
	if peak, err = p.status("VmHWM"); err != nil {
		b.Fatal(err)
	}
	b.Logf("%s: %d MiB, at most %d MiB", when, resident>>20, peak>>20)
	return resident, peak
}

// useSessions makes requests with so many of the sessions, each once.
func (p *proxy) useSessions(m mix) error {
	stride := max(1, m.sessions/m.used)
	errs := make([]error, connections)
	var all sync.WaitGroup
	for k := range connections {
		all.Go(func() {
			errs[k] = func() error {
				c, err := dial(p.address)
				if err != nil {
					return err
				}
				defer c.conn.Close()
				for i := k; i < m.used; i += connections {
					s := session(i * stride)
					p := proxy{cookies: guard.SessionCookie + "=" + s.token + "; chat_session=" + s.cookie}
					status, body, err := c.ask(p.request())
					if err != nil {
						return err
					}
					if status != http.StatusOK || string(body) != thing {
						return fmt.Errorf("session %d: the answer is %d %.300q, want 200 and the thing", i*stride, status, body)
					}
				}
				return nil
			}()
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// seeded begins the backend's cookies of sessions that nobody logged in for.
const seeded = "seeded-"

// secrets are what the client of a session has.
type secrets struct{ token, cookie string }

func session(i int) secrets {
	var b [32]byte
	binary.BigEndian.PutUint64(b[24:], uint64(i))
	return secrets{base64.RawURLEncoding.EncodeToString(b[:]), seeded + strconv.Itoa(i)}
}

// seedSessions begins one session as a login does, and makes n of it. A million logins
// would take an hour, each being durable by itself.
func seedSessions(ctx context.Context, dir string, n int, now time.Time) error {
	db, err := storage.Open(ctx, storage.Options{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := auth.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		return err
	}
	sessions, err := auth.OpenSessions(ctx, store, auth.SessionsConfig{}, now)
	if err != nil {
		return err
	}
	const kind = "session" // of the credential, as the preset names it
	first, token, err := sessions.Begin(ctx, auth.Session{
		Kind: auth.BrowserSession, Subject: "1", Organization: "1", Device: "5F4XAXTQPXX4LJ2BTUFW7ZIJLQ", AAL: 1, Source: "203.0.113.7",
	}, []auth.Credential{{Kind: kind, Hash: auth.HashCredential(kind, "first")}}, now)
	if err != nil {
		return err
	}
	if err := hashesAs(ctx, db.SQL(), first.ID, token); err != nil {
		return err
	}
	const batch = 20_000
	for from := 0; from < n; from += batch {
		if err := copySessions(ctx, db.SQL(), first.ID, kind, from, min(n, from+batch)); err != nil {
			return err
		}
	}
	return db.Close()
}

// tokenHash is what the store has of a token.
func tokenHash(token string) []byte {
	h := sha256.Sum256([]byte("kidoban session token v1\x00" + token))
	return h[:]
}

// hashesAs makes sure that tokenHash is right.
func hashesAs(ctx context.Context, db *sql.DB, id, token string) error {
	var got []byte
	if err := db.QueryRowContext(ctx, `SELECT token FROM auth_sessions WHERE id = ?`, id).Scan(&got); err != nil {
		return err
	}
	if !bytes.Equal(got, tokenHash(token)) {
		return errors.New("the store hashes tokens in another way than this benchmark")
	}
	return nil
}

// copySessions makes sessions from to to of the session id.
func copySessions(ctx context.Context, db *sql.DB, id, kind string, from, to int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	columns, err := columnsOf(ctx, tx, "auth_sessions", "id", "token", "subject")
	if err != nil {
		return err
	}
	one, err := tx.PrepareContext(ctx, `INSERT INTO auth_sessions (id, token, subject, `+columns+`) SELECT ?, ?, ?, `+columns+` FROM auth_sessions WHERE id = ?`)
	if err != nil {
		return err
	}
	held, err := tx.PrepareContext(ctx, `INSERT INTO auth_credentials (hash, kind, session, place, since, retired) SELECT ?, kind, ?, place, since, retired FROM auth_credentials WHERE session = ?`)
	if err != nil {
		return err
	}
	for i := from; i < to; i++ {
		s, name := session(i), fmt.Sprintf("S%025d", i) // no decision is about it
		hash := auth.HashCredential(kind, s.cookie)
		if _, err := one.ExecContext(ctx, name, tokenHash(s.token), strconv.Itoa(i+2), id); err != nil {
			return err
		}
		if _, err := held.ExecContext(ctx, hash[:], name, id); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// columnsOf lists the columns of a table but some, for a statement.
func columnsOf(ctx context.Context, tx *sql.Tx, table string, without ...string) (string, error) {
	rows, err := tx.QueryContext(ctx, `SELECT name FROM pragma_table_info(?)`, table)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return "", err
		}
		if !slices.Contains(without, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", "), rows.Err()
}

// seedSources lets detectors and rules see log-ins of n people, each from a line of his
// own, in the twenty minutes before now, and writes what they know as the gateway does.
// One in eight fails.
func seedSources(dir string, n int, now time.Time) error {
	set, faults := rules.Load(rules.Shipped)
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	known := detectors.Default(time.Time{})
	events := n + n/5
	begin, step := now.Add(-20*time.Minute), 20*time.Minute/time.Duration(events)
	for k := range events {
		e := known.Facts(logIn(k*7919%n, k, begin.Add(time.Duration(k)*step)))
		known.Observe(e)
		set.Observe(e)
	}
	seen, err := known.Freeze()
	if err != nil {
		return err
	}
	counts, err := set.Freeze()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, remembers), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	header := []byte("[]") // of the stream of events it contains none
	return errors.Join(seen.Write(f, header), counts.Write(f, header), f.Close())
}

// logIn is the kth attempt, by person i.
func logIn(i, k int, at time.Time) detectors.Event {
	e := detectors.Event{
		Key: detectors.EventKey{Node: "bench", Incarnation: 1, Sequence: uint64(k + 1)}, Time: at, StreamTime: at, Kind: detectors.Login, Route: detectors.LoginRoute, Outcome: detectors.Success,
		Account: detectors.Account(strconv.Itoa(i + 2)), AccountSince: at.AddDate(-1, 0, 0), Organization: detectors.Organization("o" + strconv.Itoa(i/50)),
		Client: detectors.Client{JA4: "t13d1516h2_8daaf6152771_d8a2da3f94cd", Headers: "5b1f0c2d9a34", Family: "chrome"},
		Source: detectors.Source{Address: address(10<<24 + uint32(i)), ASN: 65536 + uint32(i%500), Country: "JP"},
	}
	if k%8 == 0 {
		e.Outcome = detectors.Failure
	}
	e.Fingerprint = e.Client.Fingerprint()
	e.Source.Network = netip.PrefixFrom(e.Source.Address, 32)
	binary.BigEndian.PutUint64(e.Name.Digest[:], uint64(i)+1)
	binary.BigEndian.PutUint64(e.Password.Digest[:], uint64(i)*7+1)
	if e.Outcome == detectors.Failure {
		binary.BigEndian.PutUint64(e.Password.Digest[8:], uint64(k))
	}
	for n := range uint32(11) {
		e.Password.Near = append(e.Password.Near, uint32(i)*16+n)
	}
	return e
}

// heapPart is what one part of the program has on the heap.
type heapPart struct {
	name  string
	bytes float64
}

var (
	profileHead   = regexp.MustCompile(`^heap profile: .* @ heap/(\d+)$`)
	profileRecord = regexp.MustCompile(`^(\d+): (\d+) \[\d+: \d+\] @`)
	profileFrame  = regexp.MustCompile(`^#\t0x[0-9a-f]+\t(\S+)\+0x`)
)

// heapParts reads a heap profile in text form. What is sampled is scaled up to what it
// stands for; memory belongs to the package of ours that asked for it, or else to a module that did.
func heapParts(profile string) ([]heapPart, error) {
	lines := strings.Split(profile, "\n")
	head := profileHead.FindStringSubmatch(lines[0])
	if head == nil {
		return nil, fmt.Errorf("not a heap profile: %.100q", lines[0])
	}
	rate, _ := strconv.ParseFloat(head[1], 64)
	rate /= 2 // the form writes twice the rate
	sums := make(map[string]float64)
	for i := 1; i < len(lines); i++ {
		r := profileRecord.FindStringSubmatch(lines[i])
		if r == nil {
			continue
		}
		objects, _ := strconv.ParseFloat(r[1], 64)
		size, _ := strconv.ParseFloat(r[2], 64)
		var frames []string
		for ; i+1 < len(lines); i++ {
			f := profileFrame.FindStringSubmatch(lines[i+1])
			if f == nil {
				break
			}
			frames = append(frames, f[1])
		}
		if objects > 0 {
			sums[partOf(frames)] += size / (1 - math.Exp(-size/objects/rate))
		}
	}
	var parts []heapPart
	for name, n := range sums {
		parts = append(parts, heapPart{name, n})
	}
	slices.SortFunc(parts, func(a, b heapPart) int { return int(b.bytes - a.bytes) })
	const shown = 1 << 20
	rest := heapPart{name: "less than 1 MiB each"}
	for len(parts) > 0 && parts[len(parts)-1].bytes < shown {
		rest.bytes += parts[len(parts)-1].bytes
		parts = parts[:len(parts)-1]
	}
	return append(parts, rest), nil
}

// partOf says to whom memory belongs, from the frames of who asked for it, the innermost
// first.
func partOf(frames []string) string {
	const us = "github.com/kidoban/kidoban/"
	for _, f := range frames {
		own, ok := strings.CutPrefix(f, us)
		if !ok {
			continue
		}
		return own[:strings.IndexByte(own+".", '.')]
	}
	for _, f := range frames {
		if host, _, ok := strings.Cut(f, "/"); ok && strings.Contains(host, ".") {
			return "other modules"
		}
	}
	return "Go's libraries"
}

// TestHeapParts reads a profile as Go writes it.
func TestHeapParts(t *testing.T) {
	const profile = "heap profile: 3: 3670016 [5: 9] @ heap/1048576\n" +
		"1: 2097152 [2: 4] @ 0x1 0x2 0x3\n#\t0x1\tgithub.com/kidoban/kidoban/detectors.(*table[...]).take+0x1\t/x/sources.go:1\n" +
		"#\t0x2\tgithub.com/kidoban/kidoban/detectors.(*Loops).Observe+0x2\t/x/loops.go:2\n#\t0x3\tgithub.com/kidoban/kidoban/detectors.(*Set).Observe+0x3\t/x/detector.go:3\n\n" +
		"1: 1048576 [1: 1] @ 0x4\n#\t0x4\tmodernc.org/libc.Xmalloc+0x4\t/x/libc.go:4\n\n" +
		"1: 524288 [1: 1] @ 0x5\n#\t0x5\tgithub.com/kidoban/kidoban/gateway/limits.newTable+0x5\t/x/table.go:5\n\n# runtime.MemStats\n"
	parts, err := heapParts(profile)
	if err != nil {
		t.Fatal(err)
	}
	// An object of the rate's size is sampled with a chance of 1-1/e.
	for i, want := range []heapPart{{"detectors", 2 << 20 / (1 - math.Exp(-4))}, {"other modules", 1 << 20 / (1 - math.Exp(-2))}, {"less than 1 MiB each", 1 << 19 / (1 - math.Exp(-1))}} {
		if i >= len(parts) || parts[i].name != want.name || math.Abs(parts[i].bytes-want.bytes) > 1 {
			t.Errorf("got %+v, want %+v as number %d", parts, want, i)
		}
	}
	if _, err := heapParts("nothing"); err == nil {
		t.Error("something else was read as a profile")
	}
}
