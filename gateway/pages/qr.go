package pages

import (
	"fmt"
	"html/template"
	"image/color"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// qrMax bounds what a QR code may hold: more would be too fine for a phone's camera.
const qrMax = 512

// qrQuiet is the margin around the code, in modules (ISO/IEC 18004 asks for four).
const qrQuiet = 4

// qrScale is how many pixels a module is wide, where there is room.
const qrScale = 4

// qrCode draws text as a QR code of error correction level M, black on white whatever
// the page's colours. It is part of the page, so that no address holds the secret.
func qrCode(text, label string) (template.HTML, error) {
	if len(text) > qrMax {
		return "", fmt.Errorf("drawing a QR code: %d bytes, want at most %d", len(text), qrMax)
	}
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return "", fmt.Errorf("drawing a QR code: %w", err)
	}
	n := code.Bounds().Dx()
	var path strings.Builder
	for y := range n {
		for x := 0; x < n; x++ {
			run := 0
			for x+run < n && code.At(x+run, y) == color.Black {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&path, "M%d %dh%dv1H%dz", x+qrQuiet, y+qrQuiet, run, x+qrQuiet)
				x += run
			}
		}
	}
	size := n + 2*qrQuiet
	return template.HTML(fmt.Sprintf(`<svg width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h%dv%dH0z"/><path d="%s"/></svg>`,
		qrScale*size, qrScale*size, size, size, template.HTMLEscapeString(label), size, size, path.String())), nil
}
