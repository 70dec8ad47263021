package simulate

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
)

// Counter counts the log-ins that reach a backend, by where they say they come
// from. It is put around the backend's own handler; the zero value is ready. It
// keeps one number per address that asked, and is meant for a pass, not for life.
type Counter struct {
	mu     sync.Mutex
	logins map[netip.Addr]int // guarded by mu
}

// Handler counts and passes on to next.
func (c *Counter) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/login" {
			c.count(forwarded(r))
		}
		next.ServeHTTP(w, r)
	})
}

func (c *Counter) count(from netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logins == nil {
		c.logins = make(map[netip.Addr]int)
	}
	c.logins[from]++
}

// Logins is how many log-ins came from an address.
func (c *Counter) Logins(from netip.Addr) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.logins[from]
}

// forwarded is the first address of X-Forwarded-For: the one that the simulated
// client set; a proxy in between added its own behind it. The zero address: none.
func forwarded(r *http.Request) netip.Addr {
	first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
	a, err := netip.ParseAddr(strings.TrimSpace(first))
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}
