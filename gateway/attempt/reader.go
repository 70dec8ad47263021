package attempt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// DefaultMaxBody is how many bytes of body are read unless told otherwise.
const DefaultMaxBody = 64 << 10

// What Read says of a request that must not be passed on. A caller answers the
// first two with 413 and 415 and the third with 400.
var (
	ErrTooLarge = errors.New("login body is too large")
	ErrEncoding = errors.New("login body has a content encoding; only identity can be read")
	ErrTooMany  = errors.New("login request carries too many pairs of name and password")
)

// Reader knows where a backend's login fields are. It is read-only and safe for
// concurrent use.
type Reader struct {
	// Fields by name ("email") or by JSON pointer ("/user/email"), which also
	// stands for the form field "user[email]". A name is expected at the top of a
	// document and looked for everywhere in it. A pointer is looked for at its
	// place, and at places that frameworks wrap into it; it leads through arrays,
	// so "/logins/email" expects any number of log-ins.
	NameFields, PasswordFields []string

	// MaxBody is how many bytes of body are allowed; 0: DefaultMaxBody.
	MaxBody int64
}

// Read reads the log-ins that r carries. The body is put back on r itself: a copy
// of r made before would be left without what was read. Errors wrap ErrTooLarge,
// ErrEncoding or ErrTooMany or come from reading the body; none of them quotes it.
// With ErrTooMany the first MaxPairs pairs are given.
func (rd Reader) Read(r *http.Request) (Attempt, error) {
	for _, line := range r.Header.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(line, ",") {
			if c := strings.TrimSpace(coding); c != "" && !strings.EqualFold(c, "identity") {
				return Attempt{Ambiguous: true, Why: Type}, ErrEncoding
			}
		}
	}
	body, err := rd.body(r)
	if err != nil {
		return Attempt{Size: int64(len(body)), Ambiguous: true, Why: None}, err
	}
	c := newCollector(rd)
	t := declared(r.Header.Values("Content-Type"))
	c.read(r, body, t)
	a := Attempt{Size: int64(len(body)), JSON: t.kind == jsonType || t.kind == noType && c.json}
	var doubts doubt
	a.Pairs, doubts = c.pairs()
	a.Ambiguous, a.Why = doubts != 0, doubts.String()
	if doubts&ofMany != 0 {
		a.Why = Many
		return a, fmt.Errorf("%w: the limit is %d", ErrTooMany, MaxPairs)
	}
	return a, nil
}

// InQuery reports whether the query of r carries a name or a password.
func (rd Reader) InQuery(r *http.Request) bool {
	c := newCollector(rd)
	if r.URL != nil {
		c.form(r.URL.RawQuery, ofPlace)
	}
	return len(c.fields) > 0
}

// body reads all of r's body, or fails when it is longer than allowed, and puts
// back what it read.
func (rd Reader) body(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	limit := rd.MaxBody
	if limit <= 0 {
		limit = DefaultMaxBody
	}
	if r.ContentLength > limit {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, r.ContentLength, limit)
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, DefaultMaxBody)) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(io.LimitReader(r.Body, limit+1))
	read := buf.Bytes()
	rest := io.Reader(r.Body)
	if err != nil {
		rest = failed{err} // what could not be read now must not turn into an early, clean end
	}
	r.Body = restored{io.MultiReader(bytes.NewReader(read), rest), r.Body}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return read, fmt.Errorf("%w: the server's limit is %d bytes", ErrTooLarge, tooLarge.Limit)
	}
	if err != nil {
		return read, fmt.Errorf("reading the login body: %w", err)
	}
	if int64(len(read)) > limit {
		return read, fmt.Errorf("%w: the limit is %d bytes", ErrTooLarge, limit)
	}
	return read, nil
}

type restored struct {
	io.Reader
	io.Closer
}

type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }
