package guard

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
)

// answer is the response writer the backend answers into. It looks at headers
// only: bodies stream through untouched unless hold asks for the answer to be
// kept back until it is decided on.
//
// Cookies that the preset names as credentials never pass in an informational
// (1xx) response nor in a trailer; those of a 1xx are kept and judged with the
// final headers, so that a client gets each of them once, after approval.
//
// One goroutine writes at a time; net/http's transport delivers 1xx responses
// before the final one.
type answer struct {
	w http.ResponseWriter
	v *visit

	hold     int      // bytes of body to keep back before deciding; 0: decide by headers
	tee      int      // bytes of body to copy while streaming, for the outcome in observe mode
	early    []string // Set-Cookie values that arrived in 1xx responses
	status   int
	decided  bool // judged: the final header went out, or was replaced
	dropped  bool // replaced by an answer of ours: the backend's body is discarded
	body     bytes.Buffer
	cut      bool      // body holds less than the backend sent
	panicked any       // what the backend's handler panicked with
	room     [8]string // for before
	before   []string  // header names that were set before the backend answered
}

// answerTo returns the writer of v's answer.
func (v *visit) answerTo(w http.ResponseWriter) *answer {
	a := &v.answer
	a.w, a.v = w, v
	a.before = a.room[:0]
	for name := range w.Header() {
		a.before = append(a.before, name)
	}
	return a
}

// Unwrap lets http.ResponseController reach what answer does not handle itself
// (Hijack, deadlines).
func (a *answer) Unwrap() http.ResponseWriter { return a.w }

func (a *answer) Header() http.Header {
	if a.dropped {
		return make(http.Header) // what the backend still sets goes nowhere
	}
	return a.w.Header()
}

func (a *answer) WriteHeader(status int) {
	switch {
	case a.status != 0:
		return
	case status >= 100 && status < 200 && status != http.StatusSwitchingProtocols:
		if a.v.guards() {
			a.early = append(a.early, a.v.guard.takeCredentialCookies(a.w.Header())...)
		}
		a.w.WriteHeader(status)
		return
	}
	a.status = status
	if a.hold > 0 && status != http.StatusSwitchingProtocols {
		return // decided when the body is complete or the hold is full
	}
	a.decide()
}

// decide judges the answer once and lets its header out, or replaces it.
func (a *answer) decide() {
	if a.decided {
		return
	}
	header := a.w.Header()
	if a.v.guards() {
		for _, line := range a.early {
			header.Add("Set-Cookie", line)
		}
		a.early = nil
		dropTrailer(header, "Set-Cookie")
	}
	refusal := a.v.judge(a)
	if a.v.pending != nil && a.hold == 0 {
		a.hold = maxInspected // to be held as a whole: decided again when it is there
		return
	}
	a.decided = true
	if refusal == nil {
		a.w.WriteHeader(a.status)
		return
	}
	a.dropped = true
	a.reset(header)
	refusal.write(a.w, a.v.r)
}

// ofBackend is a copy of what the backend put into the header.
func (a *answer) ofBackend() http.Header {
	header := a.w.Header().Clone()
	for _, name := range a.before {
		if name != "Set-Cookie" {
			delete(header, name)
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Transfer-Encoding", "Trailer", "Upgrade"} {
		delete(header, name) // of the connection it came on (RFC 9110 section 7.6.1)
	}
	return header
}

// reset removes what the backend put into header.
func (a *answer) reset(header http.Header) {
next:
	for name := range header {
		for _, kept := range a.before {
			if name == kept {
				continue next
			}
		}
		delete(header, name)
	}
	header.Del("Set-Cookie")
	for _, line := range a.v.cookies {
		header.Add("Set-Cookie", line)
	}
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if !a.decided {
		room := a.hold - a.body.Len()
		if len(p) <= room {
			return a.body.Write(p)
		}
		a.body.Write(p[:room])
		a.cut = true
		if err := a.release(); err != nil {
			return 0, err
		}
		n, err := a.Write(p[room:])
		return room + n, err
	}
	if a.dropped {
		return 0, errDropped
	}
	if a.tee > 0 && !a.cut {
		room := min(a.tee-a.body.Len(), len(p))
		a.body.Write(p[:room])
		a.cut = room < len(p)
	}
	return a.w.Write(p)
}

// release decides and sends what was kept back.
func (a *answer) release() error {
	if a.decided {
		return nil
	}
	a.decide()
	if a.dropped || a.body.Len() == 0 {
		return nil
	}
	_, err := a.w.Write(a.body.Bytes())
	return err
}

// ReadFrom keeps the fast path of io.Copy for bodies that only stream.
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.decided && !a.dropped && a.tee == 0 {
		if rf, ok := a.w.(io.ReaderFrom); ok {
			return rf.ReadFrom(r)
		}
		return io.Copy(writerOnly{a.w}, r)
	}
	return io.Copy(writerOnly{a}, r)
}

// FlushError implements what http.ResponseController.Flush asks for. An answer
// kept back is not flushed: its time comes with the decision.
func (a *answer) FlushError() error {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if !a.decided || a.dropped {
		return nil
	}
	return http.NewResponseController(a.w).Flush()
}

// errDropped stops the copying of a body that nobody will get.
var errDropped = errors.New("the answer was replaced")

// finish decides what is still undecided after the backend returned with err, or
// panicked, and removes credentials from trailers. It returns what the server
// should make of it. An answer that was cut off on its way is not decided on.
func (a *answer) finish(panicked any, err error) error {
	a.panicked = panicked
	if panicked == nil && a.status != 0 && !a.decided {
		err = errors.Join(err, a.release())
	}
	if a.dropped {
		// Our own answer is complete; that the backend's could not be sent is no error.
		a.panicked = nil
		return nil
	}
	if a.v.guards() && a.decided {
		header := a.w.Header()
		if lines := header[http.TrailerPrefix+"Set-Cookie"]; len(lines) > 0 {
			a.v.guard.report(a.v, "a cookie in a trailer was removed")
			delete(header, http.TrailerPrefix+"Set-Cookie")
		}
	}
	return err
}

// abort passes on a panic of the backend's handler: net/http's way to say that a
// connection must be cut.
func (a *answer) abort() {
	if a.panicked != nil {
		panic(a.panicked)
	}
}

type writerOnly struct{ io.Writer }

// dropTrailer removes name from the announced trailers of header.
func dropTrailer(header http.Header, name string) {
	announced := header["Trailer"]
	if len(announced) == 0 {
		return
	}
	var kept []string
	for _, line := range announced {
		for field := range strings.SplitSeq(line, ",") {
			if field = strings.TrimSpace(field); field != "" && !strings.EqualFold(field, name) {
				kept = append(kept, field)
			}
		}
	}
	if len(kept) == 0 {
		delete(header, "Trailer")
		return
	}
	header["Trailer"] = []string{strings.Join(kept, ", ")}
}
