package guard

import (
	"io"
	"net/http"
)

// OwnHeaderPrefix is the prefix of the headers the gate sends to the backend.
const OwnHeaderPrefix = "Kidoban-"

// clean removes from r whatever only the gate may say. Names with an underscore
// are matched too: CGI-like backends fold "_" and "-" into one.
func clean(r *http.Request) {
	for name := range r.Header {
		if ownHeader(name) {
			delete(r.Header, name)
		}
	}
}

// guardTrailers removes from the announced trailers of r, now and when they have
// come, what could carry a credential past the gate: they come after everything
// was decided. Trailers that were not announced do not get further than the server.
func (v *visit) guardTrailers() {
	r := v.r
	if len(r.Trailer) == 0 {
		return
	}
	v.dropTrailers()
	if r.Body != nil {
		r.Body = trailerGuard{r.Body, v}
	}
}

func (v *visit) dropTrailers() {
	for name := range v.r.Trailer {
		switch {
		case ownHeader(name), name == "Cookie", name == "Authorization":
			delete(v.r.Trailer, name)
		}
		for _, c := range v.guard.headerCredentials {
			if name == headerField(c) {
				delete(v.r.Trailer, name)
			}
		}
	}
}

// trailerGuard is a body whose end is followed by trailers.
type trailerGuard struct {
	io.ReadCloser
	v *visit
}

func (g trailerGuard) Read(p []byte) (int, error) {
	n, err := g.ReadCloser.Read(p)
	if err != nil {
		g.v.dropTrailers()
	}
	return n, err
}

func ownHeader(name string) bool {
	if len(name) < len(OwnHeaderPrefix) {
		return false
	}
	for i := range len(OwnHeaderPrefix) {
		c, want := name[i], OwnHeaderPrefix[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c == '_' {
			c = '-'
		}
		if 'A' <= want && want <= 'Z' {
			want += 'a' - 'A'
		}
		if c != want {
			return false
		}
	}
	return true
}
