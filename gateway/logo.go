package gateway

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
)

const maxLogo = 32 << 10 // bytes

// readLogo reads an image that pages show. Its kind is told by its content, since
// that is what browsers are told.
func readLogo(file string) (image []byte, media string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	if image, err = io.ReadAll(io.LimitReader(f, maxLogo+1)); err != nil {
		return nil, "", err
	}
	if len(image) > maxLogo {
		return nil, "", fmt.Errorf("the file has more than %d KiB: make the image smaller", maxLogo>>10)
	}
	switch media = http.DetectContentType(image); media {
	case "image/png", "image/webp":
		return image, media, nil
	}
	if err := checkSVG(image); err != nil {
		return nil, "", err
	}
	return image, "image/svg+xml", nil
}

const svgSpace = "http://www.w3.org/2000/svg"

// What runs or loads in an SVG document. Pages show it as an image, where browsers
// let it do neither, and it is served in a sandbox: this is for the day when
// somebody shows it in another way.
var svgRefused = []string{"script", "handler", "listener", "foreignobject", "iframe", "object", "embed", "audio", "video"}

// checkSVG refuses what is no SVG image, or more than one.
func checkSVG(data []byte) error {
	d := xml.NewDecoder(strings.NewReader(string(data)))
	depth, roots := 0, 0
	for {
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && roots == 1:
			return nil
		case err != nil:
			return errors.New("want a PNG, WebP or SVG image")
		}
		switch t := token.(type) {
		case xml.Directive:
			return errors.New("the SVG has a DOCTYPE, which may define anything: leave it out")
		case xml.ProcInst:
			if t.Target != "xml" {
				return fmt.Errorf("the SVG has an instruction %.40q: leave it out", t.Target)
			}
		case xml.EndElement:
			depth--
		case xml.StartElement:
			if depth == 0 {
				if roots++; roots > 1 || t.Name.Local != "svg" || t.Name.Space != svgSpace {
					return errors.New("want a PNG, WebP or SVG image")
				}
			}
			depth++
			if slices.Contains(svgRefused, strings.ToLower(t.Name.Local)) {
				return fmt.Errorf("the SVG has an element %q, which may run or load something: save it as a plain image", t.Name.Local)
			}
			for _, a := range t.Attr {
				if err := checkSVGAttribute(a); err != nil {
					return err
				}
			}
		}
	}
}

// checkSVGAttribute refuses handlers of events, references to elsewhere, and
// animations that would make such.
func checkSVGAttribute(a xml.Attr) error {
	name, value := strings.ToLower(a.Name.Local), strings.ToLower(strings.TrimSpace(a.Value))
	switch {
	case a.Name.Space == "xmlns" || name == "xmlns":
	case strings.HasPrefix(name, "on"):
		return fmt.Errorf("the SVG has an attribute %q, which runs something: save it as a plain image", a.Name.Local)
	case name == "href" || name == "src":
		if !strings.HasPrefix(value, "#") && !strings.HasPrefix(value, "data:image/png;") && !strings.HasPrefix(value, "data:image/jpeg;") {
			return fmt.Errorf("the SVG refers by %q to something else: save it as a plain image", a.Name.Local)
		}
	case name == "attributename" && (strings.HasPrefix(value, "on") || strings.HasSuffix(value, "href")):
		return fmt.Errorf("the SVG changes the attribute %.40q: save it as a plain image", a.Value)
	}
	return nil
}
