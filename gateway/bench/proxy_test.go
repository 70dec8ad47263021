//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// size is how much is done.
type size struct {
	rounds, requests int // requests of a round for each row, in turns
	many             int // decisions of the last row
}

var (
	whole = size{rounds: 60, requests: 2400, many: 1_000_000}
	short = size{rounds: 3, requests: 400, many: 20_000}
)

// turns is how often a row's turn comes in a round. A neighbour that makes the
// machine slow for a second must not meet one row alone.
const turns = 8

const fewDecisions = 1000

// proxy is one row of the table.
type proxy struct {
	name      string // in metrics
	title     string
	guarded   bool
	limits    bool
	decisions int

	*process
	dir     string
	address string
	admin   string // address of Caddy's admin endpoint; empty: there is none
	cookies string // of a session that was begun through this proxy
	result  result
}

func proxies(s size) []*proxy {
	return []*proxy{
		{name: "bare", title: "bare Caddy `reverse_proxy`"},
		{name: "again", title: "the same again (A/A)"},
		{name: "guards", title: "all guards on", guarded: true},
		{name: "few", title: "all guards, 3 limits, " + thousands(fewDecisions) + " decisions", guarded: true, limits: true, decisions: fewDecisions},
		{name: "many", title: "all guards, 3 limits, " + thousands(s.many) + " decisions", guarded: true, limits: true, decisions: s.many},
	}
}

// BenchmarkProxy prints the table and reports its medians as metrics.
func BenchmarkProxy(b *testing.B) {
	s := whole
	if testing.Short() {
		s = short
	}
	ctx := b.Context()
	dir := b.TempDir()
	binary := build(b, dir)
	rows := proxies(s)
	for _, p := range rows {
		p.dir = filepath.Join(dir, p.name)
		if err := os.Mkdir(p.dir, 0o700); err != nil {
			b.Fatal(err)
		}
		if p.decisions == 0 {
			continue
		}
		begun := time.Now()
		if err := seed(ctx, p.dir, p.decisions, begun); err != nil {
			b.Fatal(err)
		}
		b.Logf("%s: %d decisions seeded in %v", p.name, p.decisions, time.Since(begun).Round(time.Millisecond))
	}

	where, err := pickCores()
	if err != nil {
		b.Fatal(err)
	}
	backend := startBackend(b, where.rest)
	for _, p := range rows {
		p.start(b, binary, where.proxy, backend)
	}
	for _, p := range rows {
		p.ready(b)
	}
	for _, p := range rows {
		if p.guarded {
			p.cookies = p.logIn(b)
		}
	}
	for _, p := range rows {
		if !p.guarded {
			p.cookies = rows[len(rows)-1].cookies
		}
		p.check(b)
	}
	want := len(rows[0].request())
	for _, p := range rows {
		if got := len(p.request()); got != want {
			b.Fatalf("%s: the request has %d bytes, that of %s %d: they must be equal to compare", p.name, got, rows[0].name, want)
		}
		p.pause(b)
	}

	for b.Loop() {
		for _, p := range rows {
			p.result = result{title: p.title}
		}
		for round := range s.rounds {
			everyTurn(b, rows, round, s.requests/turns)
		}
	}

	results := make([]result, len(rows))
	for i, p := range rows {
		p.resume(b)
		p.check(b)
		if p.result.resident, err = p.resident(); err != nil {
			b.Fatal(err)
		}
		if *profileDir != "" {
			p.profile(b)
		}
		p.pause(b)
		results[i] = p.result
	}
	report(b, s, where, rows, results)
}

func report(b *testing.B, s size, where cores, rows []*proxy, results []result) {
	var out bytes.Buffer
	fmt.Fprintln(&out)
	writeTable(&out, results)
	busy := each(results[0].bursts, burst.busy)
	few, many := results[len(results)-2].bursts, results[len(results)-1].bursts
	more := pairs(few, many, added)
	fmt.Fprintf(&out, "\nMedians (quartiles) of %d rounds, in each of which every row gets %d requests in turns over %d connections; differences and ratios are within a "+
		"round. %s decisions instead of %s cost %+.1f µs (%+.1f to %+.1f) a request, %+.1f%%. %s, %s; the proxy alone on core %d, "+
		"its core %.0f%% busy with bare Caddy; load and backend on core %d.\n\n",
		s.rounds, s.requests, connections, thousands(s.many), thousands(fewDecisions), more.mid, more.low, more.high,
		100*more.mid/each(few, burst.perRequest).mid, machine(), runtime.Version(), where.proxy, 100*busy.mid, where.rest)
	io.Copy(os.Stdout, &out)

	b.ReportMetric(0, "ns/op")
	for i, p := range rows {
		b.ReportMetric(each(results[i].bursts, burst.perRequest).mid, p.name+"-µs/req")
		if i > 0 {
			b.ReportMetric(pairs(results[0].bursts, results[i].bursts, added).mid, p.name+"-added-µs/req")
			b.ReportMetric(pairs(results[0].bursts, results[i].bursts, ratio).mid, p.name+"-throughput-ratio")
		}
	}
}

// build compiles the gateway and makes sure that the modules it is about are in it.
func build(b *testing.B, dir string) string {
	b.Helper()
	binary := filepath.Join(dir, "kidoban")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/kidoban/kidoban/gateway/cmd/kidoban").CombinedOutput(); err != nil {
		b.Fatalf("building the gateway: %v\n%s", err, out)
	}
	out, err := exec.Command(binary, "list-modules", "--skip-standard").CombinedOutput()
	if err != nil {
		b.Fatalf("listing the gateway's modules: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "http.handlers.kidoban\n") {
		b.Fatalf("the gateway was built without the module http.handlers.kidoban; it has\n%s", out)
	}
	return binary
}

// startBackend starts the backend and returns its address.
func startBackend(b *testing.B, core int) string {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{asBackend + "=1"}
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	p := start(b, "backend", b.TempDir(), core, cmd)
	w.Close()
	address, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		b.Fatalf("the backend did not tell its address: %v: %s", err, p.said())
	}
	return strings.TrimSpace(address)
}

// start starts the proxy in front of a backend.
func (p *proxy) start(b *testing.B, binary string, core int, backend string) {
	b.Helper()
	p.address = freeAddress(b)
	if *profileDir != "" {
		p.admin = freeAddress(b)
	}
	config := filepath.Join(p.dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(p.caddyfile(backend)), 0o600); err != nil {
		b.Fatal(err)
	}
	p.process = start(b, p.name, p.dir, core, exec.Command(binary, "run", "--config", config, "--adapter", "caddyfile"))
}

func (p *proxy) caddyfile(backend string) string {
	var c strings.Builder
	c.WriteString("{\n\tpersist_config off\n\tauto_https off\n\tlog {\n\t\tlevel WARN\n\t}\n")
	if p.admin == "" {
		c.WriteString("\tadmin off\n")
	} else {
		c.WriteString("\tadmin " + p.admin + "\n")
	}
	if p.guarded {
		c.WriteString("\tkidoban {\n\t\tdata_dir " + p.dir + "\n")
		if p.limits {
			// So much that nobody is ever refused: what is measured is the counting.
			for _, key := range []string{"address", "session", "route"} {
				c.WriteString("\t\tlimit by-" + key + " {\n\t\t\tkey " + key + "\n\t\t\trate 100000000/1m\n\t\t}\n")
			}
		}
		c.WriteString("\t}\n")
	}
	_, port, _ := net.SplitHostPort(p.address)
	c.WriteString("}\nhttp://:" + port + " {\n\tbind 127.0.0.1\n")
	if p.guarded {
		c.WriteString("\tkidoban {\n\t\tbackend chatcore\n\t}\n")
	}
	c.WriteString("\treverse_proxy " + backend + "\n}\n")
	return c.String()
}

// freeAddress is a local address that nobody listens at, with a port of five digits.
func freeAddress(b *testing.B) string {
	b.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		address := l.Addr().(*net.TCPAddr)
		l.Close()
		if address.Port >= 10000 {
			return address.String()
		}
	}
	b.Fatal("no free port of five digits was found")
	return ""
}

// ready waits until the proxy answers. One with a million decisions reads them first.
func (p *proxy) ready(b *testing.B) {
	b.Helper()
	begun := time.Now()
	for tick := time.Tick(50 * time.Millisecond); ; {
		status, err := p.get("", "")
		if err == nil && status == http.StatusUnauthorized {
			b.Logf("%s: ready after %v", p.name, time.Since(begun).Round(time.Millisecond))
			return
		}
		if time.Since(begun) > 2*time.Minute {
			b.Fatalf("%s does not answer: status %d, %v: %s", p.name, status, err, p.said())
		}
		select {
		case <-p.done:
			b.Fatalf("%s ended: %v: %s", p.name, p.err, p.said())
		case <-tick:
		}
	}
}

const host = "chat.example.com"

// get asks for the measured resource with some cookies, from a local address if
// one is given, and returns the status.
func (p *proxy) get(cookies, from string) (int, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
	r, err := http.NewRequest("GET", "http://"+p.address+"/api/thing", nil)
	if err != nil {
		return 0, err
	}
	r.Host = host
	if cookies != "" {
		r.Header.Set("Cookie", cookies)
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// logIn logs in through the proxy and returns the cookies a browser would have.
func (p *proxy) logIn(b *testing.B) string {
	b.Helper()
	r, err := http.NewRequest("POST", "http://"+p.address+"/login", strings.NewReader(`{"email":"`+account+`","password":"`+password+`"}`))
	if err != nil {
		b.Fatal(err)
	}
	r.Host = host
	r.Header.Set("Content-Type", "application/json")
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		b.Fatalf("%s: logging in: %v: %s", p.name, err, p.said())
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s: logging in: %d %s, %v: %s", p.name, resp.StatusCode, body, err, p.said())
	}
	var jar []string
	for _, c := range resp.Cookies() {
		jar = append(jar, c.Name+"="+c.Value)
	}
	return strings.Join(jar, "; ")
}

// check makes sure that the proxy does what its row says: a benchmark of a gate
// that stands open would be worth nothing.
func (p *proxy) check(b *testing.B) {
	b.Helper()
	var stolen []string // the backend's cookie without ours
	for part := range strings.SplitSeq(p.cookies, "; ") {
		if strings.HasPrefix(part, "chat_session=") {
			stolen = append(stolen, part)
		}
	}
	if len(stolen) != 1 {
		b.Fatalf("%s: %d cookies of the backend among those of a login, want one", p.name, len(stolen))
	}
	theft, ban := http.StatusOK, http.StatusOK
	if p.guarded {
		theft = http.StatusUnauthorized
	}
	if p.decisions > 0 {
		ban = http.StatusForbidden
	}
	for _, tt := range []struct {
		what          string
		cookies, from string
		want          int
	}{
		{"the session's own request", p.cookies, "", http.StatusOK},
		{"the backend's cookie alone", stolen[0], "", theft},
		{"a request from " + refused, p.cookies, refused, ban},
	} {
		if got, err := p.get(tt.cookies, tt.from); err != nil || got != tt.want {
			b.Fatalf("%s: %s: got %d, %v, want %d: %s", p.name, tt.what, got, err, tt.want, p.said())
		}
	}
}

// request is what the load sends.
func (p *proxy) request() []byte {
	return []byte("GET /api/thing HTTP/1.1\r\n" +
		"Host: " + host + "\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
		"Accept: application/json\r\n" +
		"Accept-Language: ja,en;q=0.7\r\n" +
		"Cookie: " + p.cookies + "\r\n\r\n")
}

func (p *proxy) pause(b *testing.B) {
	b.Helper()
	if err := p.signal(syscall.SIGSTOP); err != nil {
		b.Fatal(err)
	}
}

func (p *proxy) resume(b *testing.B) {
	b.Helper()
	if err := p.signal(syscall.SIGCONT); err != nil {
		b.Fatal(err)
	}
}

// everyTurn is one round: all rows' turns with n requests each, in an order that
// is another one each time.
func everyTurn(b *testing.B, rows []*proxy, round, n int) {
	b.Helper()
	crews := make([]*crew, len(rows))
	bursts := make([]burst, len(rows))
	for i, p := range rows {
		var err error
		if crews[i], err = hire(p.address, p.request(), thing); err != nil {
			b.Fatalf("%s: %v: %s", p.name, err, p.said())
		}
		defer crews[i].close()
	}
	for turn := range turns {
		for i := range rows {
			at := (i + turn + round) % len(rows)
			if turn%2 == 1 {
				at = len(rows) - 1 - at // so that no row always comes after the same one
			}
			p := rows[at]
			p.resume(b)
			got, err := crews[at].load(n, p.cpu)
			if err != nil {
				b.Fatalf("%s: %v: %s", p.name, err, p.said())
			}
			p.pause(b)
			bursts[at] = bursts[at].plus(got)
		}
	}
	for i, p := range rows {
		p.result.bursts = append(p.result.bursts, bursts[i])
	}
}

// profile writes where the proxy's time and memory go under load.
func (p *proxy) profile(b *testing.B) {
	b.Helper()
	const seconds = 10
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	loaded := make(chan error, 1)
	c, err := hire(p.address, p.request(), thing)
	if err != nil {
		b.Fatalf("%s: %v: %s", p.name, err, p.said())
	}
	defer c.close()
	var served atomic.Int64
	go func() {
		for ctx.Err() == nil {
			if err := c.spend(100); err != nil {
				loaded <- err
				return
			}
			served.Add(100)
		}
		loaded <- nil
	}()
	for _, kind := range []struct{ name, path string }{
		{"cpu", fmt.Sprintf("profile?seconds=%d", seconds)},
		{"allocs", fmt.Sprintf("allocs?seconds=%d", seconds)},
	} {
		before := served.Load()
		if err := fetch(ctx, "http://"+p.admin+"/debug/pprof/"+kind.path, filepath.Join(*profileDir, p.name+"."+kind.name)); err != nil {
			b.Fatalf("%s: profiling: %v: %s", p.name, err, p.said())
		}
		b.Logf("%s: about %d requests in the profile %s.%s", p.name, served.Load()-before, p.name, kind.name)
	}
	cancel()
	if err := <-loaded; err != nil {
		b.Fatalf("%s: load while profiling: %v: %s", p.name, err, p.said())
	}
}

// fetch downloads url to a file.
func fetch(ctx context.Context, url, file string) error {
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d: %.200s", url, resp.StatusCode, body)
	}
	return os.WriteFile(file, body, 0o600)
}

// machine is what the figures were measured on.
func machine() string {
	model := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return model
	}
	return model + ", Linux " + unix.ByteSliceToString(u.Release[:])
}

// thousands writes a number as 1,000,000.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
