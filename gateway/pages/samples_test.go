package pages_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/pages"
)

var (
	tokyo = time.FixedZone("JST", 9*60*60)
	noon  = time.Date(2026, 11, 25, 12, 4, 0, 0, tokyo)
)

const (
	token = "Zk3uJ8mPqX2vTn5w" // of forms
	uri   = "otpauth://totp/Example%20Chat:hanako?algorithm=SHA1&digits=6&issuer=Example%20Chat&period=30&secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
)

// samples are all views, with everything they can show.
func samples() map[string]pages.View {
	mail := []string{"h••••••@example.co.jp", "t••••@example.net"}
	codes := make([]string, 10)
	for i := range codes {
		codes[i] = fmt.Sprintf("7K3M-9QXA-0BVT-H5ZC-4NWE-Y2RD-J8G%d", i)
	}
	all := map[string]pages.View{
		"factor":                pages.Factor{Action: "/a", CSRF: token, Account: "hanako", Client: "Firefox on Windows", Place: "Japan", Key: true, KeyBegin: "/b", TOTP: true, Recovery: true, Remember: 14, Cancel: "/c", Lost: "/l"},
		"factor, failed":        pages.Factor{Action: "/a", CSRF: token, Key: true, KeyBegin: "/b", TOTP: true, Recovery: true, Failed: true, Remember: 1},
		"factor, waiting":       pages.Factor{Action: "/a", CSRF: token, TOTP: true, Recovery: true, Wait: 90 * time.Second},
		"factor, only recovery": pages.Factor{Action: "/a", CSRF: token, Recovery: true, Failed: true},
		"factor, step-up":       pages.Factor{Action: "/a", CSRF: token, StepUp: true, Key: true, KeyBegin: "/b", Cancel: "/c"},
		"confirm":               pages.Confirm{Action: "/a", CSRF: token, Account: "hanako", Client: "Firefox on Windows", Place: "Japan", Mail: mail, Resend: "/r", Until: noon, Cancel: "/c"},
		"confirm, stepped up":   pages.Confirm{Action: "/a", CSRF: token, Unsure: true, Resend: "/r", Cancel: "/c"},
		"confirm, failed":       pages.Confirm{Action: "/a", CSRF: token, Failed: true, Resend: "/r"},
		"confirm, sent again":   pages.Confirm{Action: "/a", CSRF: token, Mail: mail, Resent: true},
		"confirm, waiting":      pages.Confirm{Action: "/a", CSRF: token, Mail: mail, Wait: time.Hour},
		"code":                  pages.Code{Action: "/a", CSRF: token, Client: "Example Chat for Android", Place: "Japan", Asked: noon},
		"code, failed":          pages.Code{Action: "/a", CSRF: token, Failed: true},
		"code, waiting":         pages.Code{Action: "/a", CSRF: token, Wait: time.Second},
		"elsewhere":             pages.Elsewhere{},
		"done":                  pages.Done{Return: "/rooms/7?at=3#last"},
		"done, app":             pages.Done{},
		"over":                  pages.Over{},
		"denied":                pages.Denied{},
		"owed":                  pages.Owed{CSRF: token, Mail: mail, LinkAction: "/l", CodeAction: "/k", Cancel: "/c"},
		"owed, sent":            pages.Owed{CSRF: token, LinkAction: "/l", Sent: true, CodeAction: "/k", Failed: true},
		"owed, waiting":         pages.Owed{CSRF: token, CodeAction: "/k", Wait: time.Minute},
		"owed, here":            pages.Owed{CSRF: token, Evidence: true, Action: "/o", Cancel: "/c"},
		"owed, no way":          pages.Owed{CSRF: token},
		"enrol-totp":            pages.EnrolTOTP{Action: "/a", CSRF: token, URI: uri, Secret: "JBSW Y3DP EHPK 3PXP JBSW Y3DP EHPK 3PXP", Account: "hanako", Cancel: "/c"},
		"enrol-totp, failed":    pages.EnrolTOTP{Action: "/a", CSRF: token, URI: uri, Secret: "JBSW Y3DP EHPK 3PXP JBSW Y3DP EHPK 3PXP", Failed: true},
		"enrol-key":             pages.EnrolKey{Action: "/a", CSRF: token, Begin: "/b", Name: "Firefox on Windows", Cancel: "/c"},
		"enrol-key, failed":     pages.EnrolKey{Action: "/a", CSRF: token, Begin: "/b", Failed: true},
		"codes":                 pages.Codes{CSRF: token, Codes: codes, Account: "hanako", Next: "/n", Replaced: true},
		"enrol-link":            pages.EnrolLink{Action: "/a?t=abc", CSRF: token, Usable: true},
		"enrol-link, other":     pages.EnrolLink{},
		"lost":                  pages.Lost{Action: "/a", CSRF: token, Wait: 72 * time.Hour, Mail: mail, Cancel: "/c"},
		"lost, no mail":         pages.Lost{Action: "/a", CSRF: token, Wait: 24 * time.Hour},
		"recover-begun":         pages.RecoverBegun{Until: noon, Mail: mail},
		"recover-code":          pages.RecoverCode{Action: "/a", CSRF: token, Cancel: "/c"},
		"recover-code, failed":  pages.RecoverCode{Action: "/a", CSRF: token, Failed: true},
		"recover-code, waiting": pages.RecoverCode{Action: "/a", CSRF: token, Wait: 25 * time.Hour},
		"recover-stop":          pages.RecoverStop{Action: "/a", CSRF: token},
		"recover-stop, stopped": pages.RecoverStop{Stopped: true},
	}
	for _, kind := range kinds() {
		all["problem "+string(kind)] = pages.Page{Kind: kind, Reference: "7K3M-9QXA"}
	}
	maps.Copy(all, accountSamples())
	return all
}

var chat = pages.Site{Name: "Example Chat", Logo: []byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>`), LogoType: "image/svg+xml"}

// written is the answer that s writes of v.
func written(t testing.TB, s pages.Site, lang string, v pages.View) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	if err := s.Write(w, httptest.NewRequest("GET", "/", nil), http.StatusOK, lang, v); err != nil {
		t.Fatal(err)
	}
	return w
}

// each runs test for every view in both languages.
func each(t *testing.T, test func(t *testing.T, lang string, v pages.View, w *httptest.ResponseRecorder)) {
	for name, v := range samples() {
		for _, lang := range []string{"en", "ja"} {
			t.Run(strings.ReplaceAll(name, ", ", ",")+"/"+lang, func(t *testing.T) {
				test(t, lang, v, written(t, chat, lang, v))
			})
		}
	}
}
