package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// TestSimulationPage looks at the page of a report in a browser: nothing leaves the
// window, on a telephone and on a desk, and everything has a name.
func TestSimulationPage(t *testing.T) {
	for _, lang := range []string{"en", "ja"} {
		t.Run(lang, func(t *testing.T) {
			file, err := filepath.Abs(filepath.Join("..", "..", "..", "detectors", "simulate", "testdata", "golden", "report."+lang+".html"))
			if err != nil {
				t.Fatal(err)
			}
			b := browse(t, lang, 1280, 800)
			b.do(chromedp.Navigate("file://"+filepath.ToSlash(file)), chromedp.WaitVisible(css("main")))
			for _, size := range []struct {
				name          string
				width, height int64
			}{{"phone", 390, 844}, {"desktop", 1280, 800}} {
				if _, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
					Width: size.width, Height: size.height, DeviceScaleFactor: 1, Mobile: size.name == "phone"}); err != nil {
					t.Fatal(err)
				}
				if got := evaluate[string](b, fmt.Sprintf("%s(%d, %d)", resized, size.width, size.height)); got != "" {
					t.Fatalf("%s: the window is still %s", size.name, got)
				}
				if faults := evaluate[[]string](b, fmt.Sprintf("%s(%d)", glance, size.width)); len(faults) > 0 {
					t.Errorf("%s:\n%s", size.name, strings.Join(faults, "\n"))
				}
				if *shots != "" {
					picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(*shots, "simulation-"+lang+"-"+size.name+".png"), picture, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := evaluate[float64](b, `performance.getEntriesByType('resource').length`); got != 0 {
				t.Errorf("it loads %.0f other files", got)
			}
		})
	}
}
