package pages

import (
	"fmt"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"
)

// ownPath is where the gate serves what belongs to its pages.
const ownPath = "/.kidoban/"

// asset is a file that pages refer to.
type asset struct {
	body  []byte
	media string
}

// version tells one state of a file from another in its address; it protects nothing.
func (a asset) version() string {
	return strconv.FormatUint(uint64(crc32.Checksum(a.body, castagnoli)), 36)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// address is where pages find the file: a new one whenever it changes.
func (a asset) address(name string) string { return ownPath + name + "?v=" + a.version() }

// assets are the files that are the same for all sites.
var assets = map[string]asset{
	"style.css": {read("style.css"), "text/css; charset=utf-8"},
	"key.js":    {read("key.js"), "text/javascript; charset=utf-8"},
}

var addresses = func() map[string]string {
	all := make(map[string]string, len(assets))
	for name, a := range assets {
		all[name] = a.address(name)
	}
	return all
}()

func read(name string) []byte {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return b
}

// LogoAddress is where pages find the logo; empty where there is none.
func (s Site) LogoAddress() string {
	if len(s.Logo) == 0 {
		return ""
	}
	return asset{body: s.Logo}.address("logo")
}

// Serve answers what lives under the gate's own path and belongs to pages: the style
// sheet, the script, the logo, and for each problem type a page that explains it.
func (s Site) Serve(w http.ResponseWriter, r *http.Request, name string) error {
	if kind, ok := strings.CutPrefix(name, "problems/"); ok {
		if _, known := words[Kind(kind)]; known {
			return s.Write(w, r, http.StatusOK, Language(r), Page{Kind: Kind(kind)})
		}
	}
	a, ok := assets[name]
	if name == "logo" && len(s.Logo) > 0 {
		a, ok = asset{s.Logo, s.LogoType}, true
	}
	if !ok {
		http.NotFound(w, r)
		return nil
	}
	h := w.Header()
	h.Set("Content-Type", a.media)
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	// A node that has another state of the file must not have it kept under this address.
	if r.URL.Query().Get("v") == a.version() {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "no-cache")
	}
	// A logo may be a document (SVG) that somebody opens by itself.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(a.body); err != nil {
		return fmt.Errorf("sending %s: %w", name, err)
	}
	return nil
}
