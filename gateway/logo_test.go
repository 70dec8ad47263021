package gateway

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLogo: an image is taken for what it is, whatever its file is called, and an SVG
// only if it runs and loads nothing.
func TestLogo(t *testing.T) {
	var picture bytes.Buffer
	dot := image.NewGray(image.Rect(0, 0, 1, 1))
	dot.Set(0, 0, color.White)
	if err := png.Encode(&picture, dot); err != nil {
		t.Fatal(err)
	}
	webp := "RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"
	svg := func(more, inside string) string {
		return `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 8 8"` + more + `>` + inside + `</svg>`
	}
	const circle = `<circle cx="4" cy="4" r="3"/>`
	for _, test := range []struct {
		name, file, content string
		want                string // its media type; empty: refused, with fault in the error
		fault               string
	}{
		{"a PNG", "logo.png", picture.String(), "image/png", ""},
		{"a PNG by another name", "logo.svg", picture.String(), "image/png", ""},
		{"a WebP", "logo.webp", webp, "image/webp", ""},
		{"an SVG", "logo.svg", svg("", circle), "image/svg+xml", ""},
		{"an SVG by another name", "logo.png", svg("", circle), "image/svg+xml", ""},
		{"an SVG with all that is harmless", "logo.svg", "\ufeff" + `<?xml version="1.0" encoding="UTF-8"?><!-- by hand -->` + svg("",
			`<title>木戸番</title><style>.a{fill:#123}</style><defs><circle id="c" r="3"/></defs><use href="#c"/><use xlink:href="#c"/>`+
				`<image href="data:image/png;base64,AAAA"/><animate attributeName="r" to="4"/><text>onload=&quot;</text>`), "image/svg+xml", ""},
		{"an image as large as may be", "logo.png", picture.String() + strings.Repeat("\x00", maxLogo-picture.Len()), "image/png", ""},

		{"a byte more", "logo.png", picture.String() + strings.Repeat("\x00", maxLogo-picture.Len()+1), "", "more than 32 KiB"},
		{"nothing", "logo.png", "", "", "want a PNG, WebP or SVG"},
		{"a GIF", "logo.png", "GIF89a\x01\x00\x01\x00\x00\x00\x00;", "", "want a PNG, WebP or SVG"},
		{"a page", "logo.svg", "<!DOCTYPE html><html><body>" + svg("", circle), "", "DOCTYPE"},
		{"a page without a type", "logo.svg", "<html>" + svg("", circle) + "</html>", "", "want a PNG, WebP or SVG"},
		{"a name that means something else", "logo.svg", `<svg xmlns="http://www.w3.org/1999/xhtml">` + circle + `</svg>`, "", "want a PNG, WebP or SVG"},
		{"an SVG that breaks off", "logo.svg", `<svg xmlns="http://www.w3.org/2000/svg">` + circle, "", "want a PNG, WebP or SVG"},
		{"an SVG and more", "logo.svg", svg("", circle) + svg("", circle), "", "want a PNG, WebP or SVG"},
		{"entities", "logo.svg", `<!DOCTYPE svg [<!ENTITY a "b">]>` + svg("", circle), "", "DOCTYPE"},
		{"a style sheet from elsewhere", "logo.svg", `<?xml-stylesheet href="https://example.org/a.css"?>` + svg("", circle), "", "xml-stylesheet"},
		{"a script", "logo.svg", svg("", "<script>alert(1)</script>"), "", `element "script"`},
		{"a script in capitals", "logo.svg", svg("", "<SCRIPT>alert(1)</SCRIPT>"), "", `element "SCRIPT"`},
		{"a script of another name space", "logo.svg", svg("", `<h:script xmlns:h="http://www.w3.org/1999/xhtml">alert(1)</h:script>`), "", `element "script"`},
		{"a page inside", "logo.svg", svg("", "<foreignObject><p/></foreignObject>"), "", `element "foreignObject"`},
		{"a frame", "logo.svg", svg("", `<iframe xmlns="http://www.w3.org/1999/xhtml"/>`), "", `element "iframe"`},
		{"a handler of SVG Tiny", "logo.svg", svg("", "<handler/>"), "", `element "handler"`},
		{"a listener", "logo.svg", svg("", "<listener/>"), "", `element "listener"`},
		{"an object", "logo.svg", svg("", "<object/>"), "", `element "object"`},
		{"an embedded one", "logo.svg", svg("", "<embed/>"), "", `element "embed"`},
		{"sound", "logo.svg", svg("", "<audio/>"), "", `element "audio"`},
		{"a film", "logo.svg", svg("", "<video/>"), "", `element "video"`},
		{"a handler", "logo.svg", svg(` onload="alert(1)"`, circle), "", `attribute "onload"`},
		{"a handler in capitals", "logo.svg", svg("", `<circle ONCLICK="alert(1)"/>`), "", `attribute "ONCLICK"`},
		{"a link that runs", "logo.svg", svg("", `<a href="javascript:alert(1)">x</a>`), "", `by "href"`},
		{"a link that runs, the old way", "logo.svg", svg("", `<a xlink:href=" JavaScript:alert(1)">x</a>`), "", `by "href"`},
		{"an image from elsewhere", "logo.svg", svg("", `<image href="https://example.org/a.png"/>`), "", `by "href"`},
		{"an SVG inside an SVG", "logo.svg", svg("", `<image href="data:image/svg+xml;base64,AAAA"/>`), "", `by "href"`},
		{"an animation of a link", "logo.svg", svg("", `<a><set attributeName="xlink:href" to="javascript:alert(1)"/></a>`), "", `changes the attribute`},
		{"an animation of a handler", "logo.svg", svg("", `<set attributeName=" onclick" to="alert(1)"/>`), "", `changes the attribute`},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), test.file)
			if err := os.WriteFile(file, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			a := &App{Logo: file}
			err := a.provisionSite()
			switch {
			case test.want == "":
				if err == nil || !strings.Contains(err.Error(), test.fault) || !strings.Contains(err.Error(), file) {
					t.Errorf("error = %v, want one with %q that names the file", err, test.fault)
				}
			case err != nil:
				t.Error(err)
			case a.service.LogoType != test.want || string(a.service.Logo) != test.content:
				t.Errorf("%d bytes of %s, want %d of %s", len(a.service.Logo), a.service.LogoType, len(test.content), test.want)
			}
		})
	}
	if err := (&App{Logo: filepath.Join(t.TempDir(), "none.svg")}).provisionSite(); err == nil || !strings.Contains(err.Error(), "none.svg") {
		t.Errorf("error = %v, want one that names the file that is not there", err)
	}
}
