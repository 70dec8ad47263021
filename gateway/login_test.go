package gateway_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/kidoban/kidoban/detectors"
)

// evasion is a way to hide a log-in from who counts it. NAME stands for the name,
// OTHER for a second one.
type evasion struct {
	name        string
	method      string // POST unless given
	path        string // /login unless given
	kind        string // Content-Type; "-": none
	header      http.Header
	body        string
	encode      func(string) []byte
	others      bool // OTHER is tried too
	unreachable bool // no backend here evaluates it; the gate may count it or not
}

const (
	plainForm = "email=NAME&password=wrong"
	plainJSON = `{"email":"NAME","password":"wrong"}`
)

func utf16Bytes(order binary.AppendByteOrder, mark bool) func(string) []byte {
	return func(s string) []byte {
		var out []byte
		if mark {
			out = order.AppendUint16(out, 0xfeff)
		}
		for _, unit := range utf16.Encode([]rune(s)) {
			out = order.AppendUint16(out, unit)
		}
		return out
	}
}

func evasions() []evasion {
	all := []evasion{
		{name: "a form", kind: formType, body: plainForm},
		{name: "JSON", kind: jsonType, body: plainJSON},

		// Fields twice.
		{name: "a duplicate form field, first", kind: formType, body: "email=NAME&email=OTHER&password=wrong", others: true},
		{name: "a duplicate form field, last", kind: formType, body: "email=OTHER&email=NAME&password=wrong", others: true},
		{name: "a form field in brackets", kind: formType, body: "email[]=NAME&password=wrong"},
		{name: "a form field in capitals", kind: formType, body: "EMAIL=NAME&Password=wrong"},
		{name: "a form field with blanks", kind: formType, body: "+email=NAME&password%20=wrong"},
		{name: "a form field with an escaped name", kind: formType, body: "%65mail=NAME&pass%77ord=wrong"},
		{name: "one name in the query, another in the body", path: "/login?email=NAME&password=wrong", kind: formType, body: "email=OTHER&password=wrong", others: true},
		{name: "all in the query", path: "/login?email=NAME&password=wrong", kind: formType, body: "x=y"},
		{name: "the name in the query, the password in the body", path: "/login?email=NAME", kind: formType, body: "password=wrong"},
		{name: "duplicate JSON keys, first", kind: jsonType, body: `{"email":"NAME","email":"OTHER","password":"wrong"}`, others: true},
		{name: "duplicate JSON keys, last", kind: jsonType, body: `{"email":"OTHER","password":"wrong","email":"NAME"}`, others: true},
		{name: "duplicate JSON keys that differ in case", kind: jsonType, body: `{"email":"OTHER","EMAIL":"NAME","password":"wrong"}`, others: true},
		{name: "an escaped JSON key", kind: jsonType, body: `{"\u0065mail":"NAME","password":"wrong"}`},
		{name: "a nested document", kind: jsonType, body: `{"user":{"email":"NAME","password":"wrong"}}`},
		{name: "a second document behind the first", kind: jsonType, body: `{"email":"OTHER","password":"wrong"}` + "\n" + plainJSON, others: true},
		{name: "an array of log-ins", kind: jsonType, body: `[{"email":"OTHER","password":"wrong"},{"email":"NAME","password":"wrong"}]`, others: true},
		{name: "an array in an array", kind: jsonType, body: `[[{"email":"NAME","password":"wrong"}]]`},
		{name: "a name of several", kind: jsonType, body: `{"email":["OTHER","NAME"],"password":"wrong"}`, others: true, unreachable: true},
		{name: "a form behind JSON", kind: formType, body: `{"email":"OTHER","password":"wrong","x":"&email=NAME&password=wrong&"}`, others: true},

		// Content types.
		{name: "JSON as a form", kind: formType, body: plainJSON},
		{name: "a form as JSON", kind: jsonType, body: plainForm},
		{name: "JSON as text", kind: "text/plain", body: plainJSON},
		{name: "a form as text", kind: "text/plain;charset=UTF-8", body: plainForm},
		{name: "JSON without a type", kind: "-", body: plainJSON},
		{name: "a form without a type", kind: "-", body: plainForm},
		{name: "a form as an image", kind: "image/png", body: plainForm},
		{name: "JSON as something of a vendor's", kind: "application/vnd.api+json; ext=x", body: plainJSON},
		{name: "a type in capitals", kind: "APPLICATION/JSON", body: plainJSON},
		{name: "a type that is none", kind: "json", body: plainJSON},
		{name: "JSON as multipart", kind: "multipart/form-data; boundary=x", body: plainJSON},
		{name: "multipart", kind: "multipart/form-data; boundary=x",
			body: "--x\r\nContent-Disposition: form-data; name=\"email\"\r\n\r\nNAME\r\n--x\r\nContent-Disposition: form-data; name=password\r\n\r\nwrong\r\n--x--\r\n"},
		{name: "multipart with the name as a file", kind: "multipart/form-data; boundary=x",
			body: "--x\r\nContent-Disposition: form-data; name=\"email\"; filename=\"a.txt\"\r\n\r\nNAME\r\n--x\r\nContent-Disposition: form-data; name=password\r\n\r\nwrong\r\n--x--\r\n"},
		{name: "multipart of another subtype", kind: "multipart/mixed; boundary=x",
			body: "--x\r\nContent-Disposition: form-data; name=\"email\"\r\n\r\nNAME\r\n--x\r\nContent-Disposition: form-data; name=password\r\n\r\nwrong\r\n--x--\r\n"},

		// Character sets.
		{name: "a byte order mark before JSON", kind: jsonType, body: "\ufeff" + plainJSON},
		{name: "a byte order mark before a form", kind: formType, body: "\ufeff" + plainForm},
		{name: "UTF-16, little endian", kind: jsonType, body: plainJSON, encode: utf16Bytes(binary.LittleEndian, false)},
		{name: "UTF-16, big endian", kind: jsonType, body: plainJSON, encode: utf16Bytes(binary.BigEndian, false)},
		{name: "UTF-16, little endian, marked", kind: jsonType + "; charset=utf-16", body: plainJSON, encode: utf16Bytes(binary.LittleEndian, true)},
		{name: "UTF-16, big endian, marked", kind: jsonType, body: plainJSON, encode: utf16Bytes(binary.BigEndian, true)},
		{name: "a form in UTF-16", kind: formType + "; charset=utf-16", body: plainForm, encode: utf16Bytes(binary.BigEndian, true)},

		// Methods.
		{name: "PUT", method: "PUT", kind: jsonType, body: plainJSON},
		{name: "PATCH", method: "PATCH", kind: formType, body: plainForm},
		{name: "DELETE with a body", method: "DELETE", kind: formType, body: plainForm},
		{name: "GET with a query", method: "GET", path: "/login?email=NAME&password=wrong", kind: "-"},
		{name: "HEAD with a query", method: "HEAD", path: "/login?email=NAME&password=wrong", kind: "-"},
		{name: "OPTIONS with a query", method: "OPTIONS", path: "/login?email=NAME&password=wrong", kind: "-"},
		{name: "GET with a body", method: "GET", kind: jsonType, body: plainJSON},
		{name: "a method of its own", method: "LOGIN", kind: jsonType, body: plainJSON},
		{name: "a method in small letters", method: "post", kind: jsonType, body: plainJSON},
		{name: "another path behind a question mark", path: "/login?/../other", kind: jsonType, body: plainJSON},
		{name: "an empty query", path: "/login?", kind: jsonType, body: plainJSON},
	}
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		for _, method := range []string{"GET", "PUT", "DELETE", "POST", "NONSENSE"} {
			all = append(all, evasion{name: "POST, with " + name + ": " + method, kind: jsonType, body: plainJSON, header: http.Header{name: {method}}})
		}
		all = append(all, evasion{name: "GET, with " + name + ": POST", method: "GET", kind: jsonType, body: plainJSON, header: http.Header{name: {"POST"}}})
	}
	for _, query := range []string{"_method=GET", "_method=get", "method=PUT", "method=DELETE", "_METHOD=GET", "_method=POST&_method=GET"} {
		all = append(all, evasion{name: "POST, with ?" + query, path: "/login?" + query, kind: jsonType, body: plainJSON})
		all = append(all, evasion{name: "GET, with ?" + query, method: "GET", path: "/login?email=NAME&password=wrong&" + query, kind: "-"})
	}
	for _, path := range []string{
		"//login", "///login", "/%6cogin", "/%6Cogin", "/%6c%6f%67%69%6e", "/login;x", "/LOGIN", "/LogIn", "/login/",
		"/login//", "/./login", "/a/../login", "/a/b/../../login", "/a/%2e%2e/login", "/%2e/login", "/%2flogin", "/%2Flogin", "/login%2f",
		"/login%00", "/login%00.png", "/%256cogin", "/%25%36%63ogin", "/;x/login", "/x;/../login", "/..;/login", `/\login`, "/%5clogin",
		"/login%3bx", "/login/.", "/login/x/..", "/login;jsessionid=1", "/../login", "/LOGIN;X//",
	} {
		all = append(all, evasion{name: "POST " + path, path: path, kind: jsonType, body: plainJSON})
		all = append(all, evasion{name: "GET " + path, method: "GET", path: path + "?email=NAME&password=wrong", kind: "-"})
	}
	return all
}

// request makes e's request for a name.
func (e evasion) request(c *client, name, other string) (*http.Request, error) {
	body := []byte(strings.NewReplacer("NAME", name, "OTHER", other).Replace(e.body))
	if e.encode != nil {
		body = e.encode(string(body))
	}
	path := cmpOr(e.path, "/login")
	path = strings.NewReplacer("NAME", url.QueryEscape(name), "OTHER", url.QueryEscape(other)).Replace(path)
	method := cmpOr(e.method, "POST")
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) == 0 {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	if e.kind != "-" {
		r.Header.Set("Content-Type", e.kind)
	}
	for name, lines := range e.header {
		r.Header[http.CanonicalHeaderKey(name)] = lines
	}
	r.Header.Set("X-Forwarded-For", c.from)
	return r, nil
}

func cmpOr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// TestLoginEvasions tries a wrong password by every way of hiding it, over every
// protocol, and asks whether the attempt was counted for the name it was for.
func TestLoginEvasions(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b)
	var tried atomic.Int64
	for _, d := range g.doors(t) {
		if d.name == "HTTP/1.1" {
			continue // as in the clear
		}
		for _, e := range evasions() {
			t.Run(d.name+", "+e.name, func(t *testing.T) {
				n := tried.Add(1)
				name, other := fmt.Sprintf("name%d@example.com", n), fmt.Sprintf("other%d@example.com", n)
				c := g.clientAt(t, d)
				r, err := e.request(c, name, other)
				if err != nil {
					t.Fatal(err)
				}
				b.take()
				got, err := c.send(r)
				if err != nil {
					t.Fatalf("the request never came to be: %v", err)
				}
				evaluated, _ := b.take()
				if len(evaluated) == 0 && !e.unreachable && got.status < 400 {
					t.Errorf("%s, and the backend evaluated nothing: the case tests nothing", got)
				}
				events := g.eventsFrom(c.from)
				counted := make(map[detectors.Digest]bool)
				for _, event := range events {
					if event.Kind == detectors.Login {
						counted[event.Name.Digest] = true
					}
				}
				for _, typed := range evaluated {
					if !counted[g.digest(typed)] {
						t.Errorf("the backend evaluated a password of %q; the gate counted %d other names", typed, len(events))
					}
				}
				if got.status == http.StatusBadRequest || got.status == http.StatusNotFound {
					return // Caddy or the gate would not have it
				}
				if !counted[g.digest(name)] && !e.unreachable {
					t.Errorf("%s: not counted for the name; %d events, the backend evaluated %q", got, len(events), evaluated)
				}
				if e.others && !counted[g.digest(other)] {
					t.Errorf("%s: not counted for the other name; %d events", got, len(events))
				}
			})
		}
	}
}

// TestEvasionsDoNotSlowTheGateDown tries a list by another way each time, from
// one address: it must be stopped as soon as one that is tried plainly.
func TestEvasionsDoNotSlowTheGateDown(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b)
	c := g.client(t)
	all := evasions()
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	evaluated := 0
	for i, e := range all {
		r, err := e.request(c, fmt.Sprintf("name%d@example.com", i), fmt.Sprintf("other%d@example.com", i))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.send(r)
		if err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		names, _ := b.take()
		evaluated += len(slices.Compact(names))
		if got.status == http.StatusForbidden {
			if evaluated > 30 {
				t.Errorf("the gate acted after %d names at the backend, want at most 30", evaluated)
			}
			return
		}
	}
	t.Errorf("%d names were evaluated in %d requests and the gate never acted", evaluated, len(all))
}

// TestNameVariants types one name in many ways; all count as one.
func TestNameVariants(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b, "mode decisions observe") // rules would end it
	const name = "taro.yamada@example.com"
	wide := strings.Map(func(r rune) rune { return r + 0xfee0 }, name)
	variants := []string{
		name, "Taro.Yamada@Example.com", "TARO.YAMADA@EXAMPLE.COM", " " + name, name + " ", name + "\t", "\u3000" + name + "\u3000",
		wide, "taro.yamada＠example.com", "taro\u200b.yamada@example.com", "\u2060" + name, name + "\ufeff", "taro\u00ad.yamada@example.com",
		"taro.yamada@exam\u200dple.com", "𝓽𝓪𝓻𝓸.yamada@example.com", "ⓣⓐⓡⓞ.yamada@example.com", name + "\u00a0", name + "\n",
	}
	want := g.digest(name)
	for i, variant := range variants {
		for _, form := range []bool{false, true} {
			c := g.client(t)
			var got reply
			if form {
				got = c.do("POST", "/login", formType, url.Values{"email": {variant}, "password": {fmt.Sprint("form", i)}}.Encode())
			} else {
				got = c.login(variant, fmt.Sprint("wrong", i))
			}
			events := g.eventsFrom(c.from)
			if len(events) != 1 || events[0].Name.Digest != want {
				t.Errorf("%+q (form: %v): %s, events %+v; want one under the plain name's digest", variant, form, got, events)
			}
			// Ten at once are allowed for a name, from however many addresses.
			if refused := got.status == http.StatusTooManyRequests; refused != (2*i+map[bool]int{true: 1}[form] >= 10) {
				t.Errorf("%+q (form: %v), attempt %d: %s", variant, form, 2*i+map[bool]int{true: 1}[form]+1, got)
			}
		}
	}
	if evaluated, _ := b.take(); len(evaluated) > 20 { // several readings of a form may find one name
		t.Errorf("%d evaluations at the backend, want few", len(evaluated))
	}
}

// TestArraysAreCountedEach sends many log-ins in one request.
func TestArraysAreCountedEach(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b)
	c := g.client(t)
	array := func(from, n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`{"email":"user%d@example.com","password":"wrong"}`, from+i))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	c.do("POST", "/login", jsonType, array(0, 20))
	counted := make(map[detectors.Digest]bool)
	for _, e := range g.eventsFrom(c.from) {
		counted[e.Name.Digest] = true
	}
	if len(counted) != 20 {
		t.Errorf("%d names counted, want 20", len(counted))
	}
	if got := c.do("POST", "/login", jsonType, array(20, 1)); got.status != http.StatusForbidden {
		t.Errorf("the next attempt after twenty that failed in one request: %s, want 403", got)
	}
	if got := g.client(t).do("POST", "/login", jsonType, array(0, 1000)); got.status != http.StatusBadRequest {
		t.Errorf("a thousand log-ins at once: %s, want 400", got)
	}
}

// FuzzLoginEvades looks for a request by which a lenient backend evaluates a
// password and the gate counts nothing for the name. All of Caddy runs inside, so
// coverage is never the same twice: run it with -fuzzminimizetime 1x.
func FuzzLoginEvades(f *testing.F) {
	b := newBackend(f)
	g := newGate(f, b)
	for _, e := range evasions() {
		body := []byte(e.body)
		if e.encode != nil {
			body = e.encode(e.body)
		}
		header, value := "", ""
		for name, lines := range e.header {
			header, value = name, lines[0]
		}
		path, query, _ := strings.Cut(cmpOr(e.path, "/login"), "?")
		f.Add(cmpOr(e.method, "POST"), path, query, e.kind, header, value, body)
	}
	f.Fuzz(func(t *testing.T, method, path, query, kind, header, value string, body []byte) {
		if len(path) > 200 || len(query) > 2000 || len(body) > 8000 || method == http.MethodConnect {
			t.Skip()
		}
		g.t = t
		c := g.client(t)
		name := fmt.Sprintf("n%d@example.com", g.clients.Load())
		fill := strings.NewReplacer("NAME", name, "OTHER", "o"+name)
		body = []byte(fill.Replace(string(body)))
		target := c.base + path
		if query != "" {
			target += "?" + fill.Replace(query)
		}
		r, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(body))
		if err != nil || r.URL.Host != strings.TrimPrefix(c.base, "http://") {
			t.Skip()
		}
		if kind != "-" {
			r.Header.Set("Content-Type", kind)
		}
		switch http.CanonicalHeaderKey(header) {
		case "Transfer-Encoding", "Content-Length", "Host", "Connection", "Upgrade", "Trailer", "Expect", "Te", "":
		default:
			r.Header.Set(header, value)
		}
		r.Header.Set("X-Forwarded-For", c.from)
		b.take()
		if _, err := c.send(r); err != nil {
			t.Skip() // no such request can be written
		}
		evaluated, _ := b.take()
		counted := make(map[detectors.Digest]bool)
		for _, e := range g.eventsFrom(c.from) {
			counted[e.Name.Digest] = e.Kind == detectors.Login
		}
		for _, typed := range evaluated {
			if !counted[g.digest(typed)] {
				t.Errorf("%s %s: the backend evaluated a password of %q, the gate counted %d other names", method, r.URL.RequestURI(), typed, len(counted))
			}
		}
	})
}

// TestEvasionsCombined draws the path of one evasion, the body of another, the
// header of a third. Whatever a backend makes of it, what it evaluates is counted.
func TestEvasionsCombined(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b, "mode decisions observe") // rules would end it
	all := evasions()
	draw := rand.New(rand.NewPCG(11, 13))
	one := func() evasion { return all[draw.IntN(len(all))] }
	evaluations := 0
	for i := range 500 {
		e := one()
		body := one()
		e.body, e.encode, e.kind, e.method = body.body, body.encode, one().kind, one().method
		e.header = http.Header{}
		for name, lines := range one().header {
			e.header[name] = lines
		}
		path, query, _ := strings.Cut(cmpOr(one().path, "/login"), "?")
		_, more, _ := strings.Cut(one().path, "?")
		e.path = path + "?" + query + "&" + more
		c := g.client(t)
		r, err := e.request(c, fmt.Sprintf("name%d@example.com", i), fmt.Sprintf("other%d@example.com", i))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.send(r)
		if err != nil {
			t.Fatalf("%s %s: %v", r.Method, r.URL, err)
		}
		evaluated, _ := b.take()
		if len(evaluated) == 0 {
			continue
		}
		evaluations++
		counted := make(map[detectors.Digest]bool)
		for _, event := range g.eventsFrom(c.from) {
			counted[event.Name.Digest] = true
		}
		for _, typed := range evaluated {
			if !counted[g.digest(typed)] {
				t.Errorf("%s %s, %v, %q: %s; the backend evaluated a password of %q, the gate counted %d other names",
					r.Method, r.URL.RequestURI(), r.Header, e.body, got, typed, len(counted))
			}
		}
	}
	if evaluations < 150 {
		t.Errorf("only %d of 500 requests were log-ins to the backend", evaluations)
	}
}

// class is one kind of name in the timing test, with how long each attempt took.
type class struct {
	name    string
	typed   func(i int) string // in round i
	took    []float64          // in seconds
	against int                // the class that must take as long
}

// TestNamesTakeTheSameTime asks whether the time of a failed log-in tells that an
// account exists.
//
// The backend answers at once, so the gate's own work is most of what is measured.
// Attempts of all classes alternate, in an order drawn anew each round, so that
// what else the machine does falls on all alike. The differences of medians are
// compared with those that arise when labels are exchanged within rounds (which
// is what "the label does not matter" means; a permutation test), and with the
// difference between two halves of one class. A difference counts when it is
// larger than 999 of 1,000 exchanges, than twice the A/A difference, and than 5% of
// the median. A name in wide letters takes longer to read, existing or not, which tells
// its typist nothing new; so those two are compared with each other. Chance passes the first of these once in a thousand times in each of
// the comparisons; so the whole is tried up to three times and fails if one and the
// same comparison fails each time, which chance does less than once in 10^8 runs.
func TestNamesTakeTheSameTime(t *testing.T) {
	const (
		accounts = 200 // half of them in each of two classes, each name typed 8 times: 10 are free
		rounds   = 400
	)
	b := newBackend(t)
	b.route("/login", func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, 256)
		n, _ := r.Body.Read(body)
		if bytes.Contains(body[:n], []byte(`"password":"right"`)) {
			var name string
			if _, rest, ok := bytes.Cut(body[:n], []byte(`"email":"`)); ok {
				quoted, _, _ := bytes.Cut(rest, []byte(`"`))
				name = string(quoted)
			}
			b.logIn(w, name)
			return
		}
		send(w, http.StatusUnauthorized, nil)
	})
	g := newGate(t, b, "mode decisions observe") // rules would end it
	fails := make(map[string]int)
	var report []string
	for try := range 3 {
		// Accounts that somebody logged into, from other addresses and devices.
		existing := func(i int) string { return fmt.Sprintf("known%d%03d@example.com", try, i%accounts) }
		for i := range accounts {
			if got := g.client(t).login(existing(i), "right"); got.status != http.StatusOK {
				t.Fatalf("logging in as %s: %s", existing(i), got)
			}
		}
		upper := strings.ToUpper
		wide := func(name string) string {
			return strings.Map(func(r rune) rune { return r + 0xfee0 }, name)
		}
		unknown := func(kind string, i int) string { return fmt.Sprintf("%s%d%03d@example.com", kind, try, i%(accounts/2)) }
		classes := []*class{
			{name: "existing", typed: func(i int) string { return existing(2 * i) }},
			{name: "existing, the other half", typed: func(i int) string { return existing(2*i + 1) }, against: 0},
			{name: "unknown", typed: func(i int) string { return unknown("nobod", i) }, against: 0},
			{name: "never typed before", typed: func(i int) string { return fmt.Sprintf("never%d%03d@example.com", try, i) }, against: 0},
			{name: "existing, in capitals", typed: func(i int) string { return upper(existing(2 * i)) }, against: 0},
			{name: "existing, in wide letters", typed: func(i int) string { return wide(existing(2*i + 1)) }, against: 6},
			{name: "unknown, in wide letters", typed: func(i int) string { return wide(unknown("nowid", i)) }, against: 5},
		}
		measure(t, g, classes, rounds)
		report = report[:0]
		same := math.Abs(median(classes[0].took) - median(classes[1].took))
		bad := false
		for _, c := range classes[1:] {
			other := classes[c.against]
			delta := median(c.took) - median(other.took)
			bound := max(exchanged(c.took, other.took, 1000), 2*same, 0.05*median(other.took))
			report = append(report, fmt.Sprintf("%-25s median %.0f µs, %+.1f µs against %q; bound %.1f µs",
				c.name, median(c.took)*1e6, delta*1e6, other.name, bound*1e6))
			if math.Abs(delta) > bound {
				fails[c.name]++
				bad = true
			}
		}
		t.Logf("try %d:\n%s", try+1, strings.Join(report, "\n"))
		if !bad {
			return
		}
	}
	for name, n := range fails {
		if n == 3 {
			t.Errorf("%q takes another time than what it is compared with:\n%s", name, strings.Join(report, "\n"))
		}
	}
}

// measure times wrong passwords, each from an address of its own so that nothing
// is limited but the name, of which ten attempts at once are free.
func measure(t *testing.T, g *gate, classes []*class, rounds int) {
	t.Helper()
	order := make([]int, len(classes))
	for i := range order {
		order[i] = i
	}
	draw := rand.New(rand.NewPCG(3, uint64(len(classes))))
	for round := range rounds {
		draw.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, k := range order {
			c := g.client(t)
			name := classes[k].typed(round)
			r := c.request(t.Context(), "POST", "/login", jsonType, strings.NewReader(`{"email":"`+name+`","password":"wrong"}`))
			began := time.Now()
			got, err := c.send(r)
			took := time.Since(began)
			if err != nil {
				t.Fatal(err)
			}
			if got.status != http.StatusUnauthorized {
				t.Fatalf("round %d, %s as %q: %s, want 401", round, classes[k].name, name, got)
			}
			classes[k].took = append(classes[k].took, took.Seconds())
		}
	}
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// exchanged is the difference of medians that all but one in n exchanges of labels
// within pairs stay under.
func exchanged(a, b []float64, n int) float64 {
	draw := rand.New(rand.NewPCG(5, 7))
	x, y := make([]float64, len(a)), make([]float64, len(a))
	largest := 0.0
	for range n {
		for i := range a {
			x[i], y[i] = a[i], b[i]
			if draw.IntN(2) == 0 {
				x[i], y[i] = y[i], x[i]
			}
		}
		largest = max(largest, math.Abs(median(x)-median(y)))
	}
	return largest
}

// TestCutOffSaysWhy: a request of a session that ends while the backend is still at it
// is told so, with a body: not everything that is cut off is a socket. A page is asked
// for again without the session, as the backend shows it to anybody.
func TestCutOffSaysWhy(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b)
	entered := make(chan struct{})
	b.route("/slow", func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	})
	for _, test := range []struct {
		name, method, path, accept string
		want                       int
		location                   string
	}{
		{name: "a program", method: "GET", path: "/slow", want: http.StatusUnauthorized},
		{name: "a page", method: "GET", path: "/slow?of=today", accept: "text/html", want: http.StatusSeeOther, location: "/slow?of=today"},
		{name: "a form", method: "POST", path: "/slow", accept: "text/html", want: http.StatusUnauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := g.client(t)
			c.enter(alice)
			r := c.request(t.Context(), test.method, test.path, "", nil)
			r.Header.Set("Accept", test.accept)
			got := make(chan reply)
			go func() {
				answer, err := c.send(r)
				answer.err = errors.Join(answer.err, err)
				got <- answer
			}()
			<-entered
			g.operator("DELETE", "/v1/accounts/"+alice+"/sessions", nil, nil)
			answer := <-got
			if answer.err != nil || answer.status != test.want || answer.header.Get("Location") != test.location {
				t.Errorf("%d, Location %q, error %v, want %d, %q", answer.status, answer.header.Get("Location"), answer.err, test.want, test.location)
			}
			if test.accept == "" && !strings.Contains(answer.body, "session-ended") {
				t.Errorf("%q, want that the session ended", answer.body)
			}
			if c.cookies[sessionCookie] != "" {
				t.Error("the cookie of the session is kept")
			}
		})
	}
}
