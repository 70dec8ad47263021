package pages_test

import (
	"fmt"
	"image/color"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/boombuler/barcode/qr"

	"github.com/kidoban/kidoban/gateway/pages"
)

var run = regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1H(\d+)z`)

// TestQRCode draws the picture again, module by module.
func TestQRCode(t *testing.T) {
	for _, text := range []string{"otpauth://totp/x?secret=AAAA", uri, strings.Repeat("x", 512)} {
		drawn, err := pages.QRCode(text, `the "label" <b>`)
		if err != nil {
			t.Fatal(err)
		}
		want, err := qr.Encode(text, qr.M, qr.Auto)
		if err != nil {
			t.Fatal(err)
		}
		n := want.Bounds().Dx()
		const quiet = 4
		if box := fmt.Sprintf(`viewBox="0 0 %d %d"`, n+2*quiet, n+2*quiet); !strings.Contains(string(drawn), box) {
			t.Errorf("want %s: %.200s", box, drawn)
		}
		if strings.Contains(string(drawn), "<b>") || strings.Contains(string(drawn), "secret=") {
			t.Errorf("the label is not escaped, or the secret is in the text: %.200s", drawn)
		}
		dark := map[[2]int]bool{}
		for _, m := range run.FindAllStringSubmatch(string(drawn), -1) {
			var v [4]int
			for i := range v {
				v[i], _ = strconv.Atoi(m[i+1])
			}
			if v[0] != v[3] {
				t.Errorf("%s does not close", m[0])
			}
			for i := range v[2] {
				dark[[2]int{v[0] + i, v[1]}] = true
			}
		}
		for y := range n + 2*quiet {
			for x := range n + 2*quiet {
				in := x >= quiet && y >= quiet && x < n+quiet && y < n+quiet
				if got, want := dark[[2]int{x, y}], in && want.At(x-quiet, y-quiet) == color.Black; got != want {
					t.Fatalf("%d modules: the one at %d, %d is dark: %t, want %t", n, x, y, got, want)
				}
			}
		}
	}
	if _, err := pages.QRCode(strings.Repeat("x", 513), "x"); err == nil || strings.Contains(err.Error(), "xxx") {
		t.Errorf("513 bytes: %v", err)
	}
}
