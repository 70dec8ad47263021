package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"time"
)

//go:embed static
var staticFiles embed.FS

// asset is one file of the pages, named by what it holds.
type asset struct {
	content []byte
	version string
}

var assets = readAssets()

func readAssets() map[string]asset {
	all := map[string]asset{}
	names, err := fs.Glob(staticFiles, "static/*")
	if err != nil {
		panic(err) // the pattern is constant
	}
	for _, name := range names {
		b, err := staticFiles.ReadFile(name)
		if err != nil {
			panic(err) // the file is part of the program
		}
		sum := sha256.Sum256(b)
		all[path.Base(name)] = asset{content: b, version: hex.EncodeToString(sum[:8])}
	}
	return all
}

// assetURL is the address of a file as it is now; a browser may keep it for
// good, because another content has another address.
func assetURL(name string) string { return "/static/" + name + "?v=" + assets[name].version }

func serveStatic(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	a, ok := assets[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"`+a.version+`"`)
	w.Header().Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == a.version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(a.content))
}
