package pages_test

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/pages"
)

var variable = regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{3,6});`)

// schemes are the colours of the style sheet, by scheme and name.
func schemes(t *testing.T) map[string]map[string]string {
	t.Helper()
	var light, dark map[string]string
	for line := range strings.Lines(pages.File("style.css")) {
		if !strings.Contains(line, ":root {") {
			continue
		}
		colours := map[string]string{}
		for _, m := range variable.FindAllStringSubmatch(line, -1) {
			colours[m[1]] = m[2]
		}
		if strings.HasPrefix(line, "@media (prefers-color-scheme: dark)") {
			dark = colours
		} else {
			light = colours
		}
	}
	if len(light) == 0 || len(light) != len(dark) {
		t.Fatalf("%d colours in light, %d in dark", len(light), len(dark))
	}
	return map[string]map[string]string{"light": light, "dark": dark}
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	hex = strings.TrimPrefix(hex, "#")
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	var l float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		v, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(v) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		l += weight * c
	}
	return l
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// TestContrast wants 4.5 for text (WCAG 2.2, 1.4.3), and 3 for what one must see to
// use a page, the focus too (1.4.11).
func TestContrast(t *testing.T) {
	if got := contrast(t, "#fff", "#000000"); math.Abs(got-21) > 1e-9 {
		t.Fatalf("black on white: %v, want 21", got)
	}
	for scheme, colours := range schemes(t) {
		for _, pair := range []struct {
			above, below string
			least        float64
		}{
			{"ink", "card", 4.5}, {"ink", "ground", 4.5}, {"ink", "warn-ground", 4.5},
			{"soft", "card", 4.5}, {"soft", "ground", 4.5},
			{"link", "card", 4.5}, {"link", "ground", 4.5},
			{"on-act", "act", 4.5}, {"on-act", "act-hover", 4.5},
			{"bad", "bad-ground", 4.5},
			{"edge", "card", 3}, {"act", "card", 3}, {"bad", "card", 3}, {"mark", "ground", 3},
			{"focus", "card", 3}, {"focus", "ground", 3},
		} {
			a, b := colours[pair.above], colours[pair.below]
			if a == "" || b == "" {
				t.Fatalf("%s: %s is %q, %s is %q", scheme, pair.above, a, pair.below, b)
			}
			if got := contrast(t, a, b); got < pair.least {
				t.Errorf("%s: %s on %s is %.2f, want %.1f", scheme, pair.above, pair.below, got, pair.least)
			}
		}
	}
}

// TestStyleHasNoOtherColours: what is not a variable would not change with the scheme,
// and TestContrast would not know of it.
func TestStyleHasNoOtherColours(t *testing.T) {
	for line := range strings.Lines(pages.File("style.css")) {
		if strings.Contains(line, ":root {") || strings.HasPrefix(line, "@media print") {
			continue
		}
		if regexp.MustCompile(`#[0-9a-f]{3,8}\b|rgba?\(|hsla?\(`).MatchString(line) {
			t.Errorf("a colour of its own: %s", line)
		}
	}
	if strings.Contains(pages.File("style.css"), "url(") || strings.Contains(pages.File("style.css"), "@import") {
		t.Error("the style sheet loads something")
	}
}
