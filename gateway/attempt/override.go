package attempt

import (
	"net/http"
	"strings"
)

// Override returns the method that a framework may take r for, and whether that
// is another one than r's own: Rails, Laravel, Express and others believe a header
// or a query field, and some services know ?method=PUT and ?method=DELETE. Of
// several the first that names a method counts. A value that names none is
// reported as an override to r's own method: somebody tried.
func Override(r *http.Request) (method string, overridden bool) {
	try := func(value string) bool {
		m := strings.ToUpper(strings.TrimSpace(value))
		if m == "" || m == r.Method {
			return false
		}
		overridden = true
		switch m {
		case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
			http.MethodPatch, http.MethodDelete, http.MethodOptions:
			method = m
			return true
		}
		return false
	}
	for _, name := range []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"} {
		for _, value := range r.Header.Values(name) {
			if try(value) {
				return method, true
			}
		}
	}
	if r.URL != nil && r.URL.RawQuery != "" {
		for _, f := range splitForm(r.URL.RawQuery, true) {
			switch strings.ToLower(strings.TrimSpace(f.key)) {
			case "_method":
				if try(f.value) {
					return method, true
				}
			case "method": // an ordinary word: only the two values that services know
				if m := strings.ToUpper(f.value); m == http.MethodPut || m == http.MethodDelete {
					if try(m) {
						return method, true
					}
				}
			}
		}
	}
	return r.Method, overridden
}
