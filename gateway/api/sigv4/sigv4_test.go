package sigv4

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// suite is a verifier as the published vectors want it: at its time, for its
// service, with its key, and each signature for the first time.
func suite() *Verifier {
	return &Verifier{
		Services: []string{"service"},
		Secret: func(id string) (string, bool) {
			return "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", id == "AKIDEXAMPLE"
		},
		Replay: fresh{},
		Now:    func() time.Time { return time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC) },
	}
}

type fresh struct{}

func (fresh) Seen(context.Context, string, time.Time) (bool, error) { return false, nil }

type replayed struct{ err error }

func (r replayed) Seen(context.Context, string, time.Time) (bool, error) { return true, r.err }

type vector struct {
	Cases     []string
	Refused   bool
	Method    string
	Path      string
	Query     string
	Headers   [][2]string
	Body      string
	Signed    string
	Signature string
}

func vectors(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(text, &vs); err != nil {
		t.Fatal(err)
	}
	return vs
}

// authorization is the header as the suite has it.
func (v vector) authorization() string {
	return "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=" + v.Signed + ", Signature=" + v.Signature
}

// request builds the request without a parser of HTTP: some paths of the suite are
// not legal there.
func (v vector) request() *http.Request {
	r := &http.Request{Method: v.Method, URL: new(url.URL), RequestURI: v.Path, Host: "example.amazonaws.com", Header: make(http.Header), ContentLength: int64(len(v.Body))}
	if v.Query != "" {
		r.RequestURI += "?" + v.Query
	}
	for _, h := range v.Headers {
		for line := range strings.SplitSeq(h[1], "\n") { // the suite takes a folded line for a value of its own
			r.Header.Add(h[0], line)
		}
	}
	r.Header.Set("X-Amz-Date", "20150830T123600Z")
	r.Header.Set("Authorization", v.authorization())
	return r
}

func reason(err error) Reason {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal.Reason
	}
	return ""
}

func TestPublishedVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Cases[0], func(t *testing.T) {
			id, err := suite().Verify(t.Context(), v.request(), []byte(v.Body))
			switch {
			case v.Refused:
				if reason(err) != WrongBody {
					t.Errorf("error = %v, want a refusal of the body", err)
				}
			case err != nil || id != "AKIDEXAMPLE":
				t.Errorf("= %q, %v, want AKIDEXAMPLE", id, err)
			}
		})
	}
}

// TestChangedVectors changes one bit of each part of each vector. Nothing changed
// is accepted.
func TestChangedVectors(t *testing.T) {
	changes := map[string]func(*http.Request, *vector) bool{
		"method": func(r *http.Request, _ *vector) bool { r.Method = flip(r.Method, 0); return true },
		"host":   func(r *http.Request, _ *vector) bool { r.Host = flip(r.Host, 3); return true },
		"path": func(r *http.Request, v *vector) bool {
			r.RequestURI = strings.Replace(r.RequestURI, v.Path, v.Path+"a", 1)
			return true
		},
		"query": func(r *http.Request, v *vector) bool { r.RequestURI = v.Path + "?" + v.Query + "&a=1"; return true },
		"body":  func(_ *http.Request, v *vector) bool { v.Body += " "; return true },
		"date":  func(r *http.Request, _ *vector) bool { r.Header.Set("X-Amz-Date", "20150830T123601Z"); return true },
		"signature": func(r *http.Request, v *vector) bool {
			v.Signature = "0" + v.Signature[1:]
			if v.authorization() == r.Header.Get("Authorization") {
				v.Signature = "1" + v.Signature[1:]
			}
			r.Header.Set("Authorization", v.authorization())
			return true
		},
		"key":     func(r *http.Request, _ *vector) bool { replace(r, "AKIDEXAMPLE", "AKIDEXAMPLF"); return true },
		"day":     func(r *http.Request, _ *vector) bool { replace(r, "/20150830/", "/20150831/"); return true },
		"region":  func(r *http.Request, _ *vector) bool { replace(r, "us-east-1", "us-east-0"); return true },
		"service": func(r *http.Request, _ *vector) bool { replace(r, "/service/", "/servicd/"); return true },
		"list": func(r *http.Request, _ *vector) bool {
			r.Header.Set("A", "b")
			replace(r, "SignedHeaders=", "SignedHeaders=a;")
			return true
		},
		"header": func(r *http.Request, v *vector) bool {
			for _, h := range v.Headers {
				if name := strings.ToLower(h[0]); strings.Contains(v.Signed, name) {
					r.Header.Add(name, "x")
					return true
				}
			}
			return false
		},
		"a bit of the path": func(r *http.Request, v *vector) bool {
			if len(v.Path) < 8 || strings.Contains(v.Path, ".") {
				return false
			}
			r.RequestURI = flip(r.RequestURI, 3)
			return true
		},
		"a bit of the query": func(r *http.Request, v *vector) bool {
			if v.Query == "" {
				return false
			}
			r.RequestURI = v.Path + "?" + flip(v.Query, 0)
			return true
		},
		"a bit of the body": func(_ *http.Request, v *vector) bool {
			if v.Body == "" {
				return false
			}
			v.Body = flip(v.Body, 5)
			return true
		},
		"the secret": func(*http.Request, *vector) bool { return true },
	}
	tried := 0
	for _, v := range vectors(t) {
		for name, change := range changes {
			v, r, verifier := v, v.request(), suite()
			if !change(r, &v) {
				continue
			}
			if name == "the secret" {
				verifier.Secret = func(string) (string, bool) { return "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEX", true }
			}
			tried++
			if _, err := verifier.Verify(t.Context(), r, []byte(v.Body)); reason(err) == "" {
				t.Errorf("%s with another %s: error = %v, want a refusal", v.Cases[0], name, err)
			}
		}
	}
	if tried < 400 {
		t.Errorf("%d changes were tried, want more than that", tried)
	}
}

func flip(s string, i int) string { return s[:i] + string(s[i]^1) + s[i+1:] }

func replace(r *http.Request, old, new string) {
	r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
}

// signFor signs r, whose target is in RequestURI, in the form that path and query
// are given in.
func signFor(r *http.Request, secret, path, query, body string, at time.Time, signed ...string) {
	r.Header.Set("X-Amz-Date", at.Format(isoBasic))
	a := authorization{accessKeyID: "AKIDEXAMPLE", day: at.Format("20060102"), region: "us-east-1", service: "service", signedHeaders: signed}
	headers, err := canonicalHeaders(r, signed)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256([]byte(body))
	request := sha256.Sum256([]byte(strings.Join([]string{r.Method, path, query, headers, strings.Join(signed, ";"), hex.EncodeToString(sum[:])}, "\n")))
	copy(a.signature[:], sign(signingKey(secret, a.day, a.region, a.service),
		strings.Join([]string{algorithm, at.Format(isoBasic), a.scope(), hex.EncodeToString(request[:])}, "\n")))
	r.Header.Set("Authorization", a.String())
}

func TestWhatIsRefused(t *testing.T) {
	now := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	secret, _ := suite().Secret("AKIDEXAMPLE")
	for _, test := range []struct {
		name   string
		change func(*http.Request)
		want   Reason
	}{
		{"nothing", func(*http.Request) {}, ""},
		{"no signature", func(r *http.Request) { r.Header.Del("Authorization") }, Unsigned},
		{"two signatures", func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, Unsigned},
		{"another scheme", func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, Unsigned},
		{"asymmetric", func(r *http.Request) { replace(r, "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256X") }, Malformed},
		{"no list", func(r *http.Request) { replace(r, "SignedHeaders=host;x-amz-date, ", "") }, Malformed},
		{"twice", func(r *http.Request) { replace(r, "Signature=", "SignedHeaders=host, Signature=") }, Malformed},
		{"something more", func(r *http.Request) { replace(r, "Signature=", "Extra=1, Signature=") }, Malformed},
		{"host not signed", func(r *http.Request) { replace(r, "host;", "") }, Malformed},
		{"date not signed", func(r *http.Request) { replace(r, ";x-amz-date", "") }, Malformed},
		{"order", func(r *http.Request) { replace(r, "host;x-amz-date", "x-amz-date;host") }, Malformed},
		{"a signed header that is not there", func(r *http.Request) { replace(r, "host;", "host;more;") }, Malformed},
		{"upper case", func(r *http.Request) { replace(r, "Signature=", "Signature=A") }, Malformed},
		{"two dates", func(r *http.Request) { r.Header.Add("X-Amz-Date", "20150830T123600Z") }, Malformed},
		{"a date that is none", func(r *http.Request) { r.Header.Set("X-Amz-Date", "now") }, Malformed},
		{"no date", func(r *http.Request) { r.Header.Del("X-Amz-Date") }, Malformed},
		{"not the terminator", func(r *http.Request) { replace(r, "aws4_request", "aws5_request") }, Malformed},
		{"another service", func(r *http.Request) { replace(r, "/service/", "/s3/") }, WrongScope},
		{"just old enough", func(r *http.Request) { signFor(r, secret, "/", "", "", now.Add(-Window), "host", "x-amz-date") }, ""},
		{"too old", func(r *http.Request) {
			signFor(r, secret, "/", "", "", now.Add(-Window-time.Second), "host", "x-amz-date")
		}, WrongDate},
		{"just early enough", func(r *http.Request) { signFor(r, secret, "/", "", "", now.Add(Window), "host", "x-amz-date") }, ""},
		{"too early", func(r *http.Request) {
			signFor(r, secret, "/", "", "", now.Add(Window+time.Second), "host", "x-amz-date")
		}, WrongDate},
		{"unsigned payload", func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") }, WrongBody},
		{"streamed payload", func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") }, WrongBody},
		{"another payload", func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", strings.Repeat("0", 64)) }, WrongBody},
		{"two payloads", func(r *http.Request) {
			r.Header["X-Amz-Content-Sha256"] = []string{strings.Repeat("0", 64), strings.Repeat("1", 64)}
		}, Malformed},
		{"presigned", func(r *http.Request) { r.RequestURI = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00" }, Presigned},
		{"presigned in other letters", func(r *http.Request) { r.RequestURI = "/?x%2Damz-signature=00" }, Presigned},
		{"unknown key", func(r *http.Request) { replace(r, "AKIDEXAMPLE", "AKIDNOBODY") }, Mismatch},
		{"wrong secret", func(r *http.Request) { signFor(r, "another", "/", "", "", now, "host", "x-amz-date") }, Mismatch},
		{"the secret of nobody", func(r *http.Request) {
			signFor(r, "the secret of nobody at all, of common length", "/", "", "", now, "host", "x-amz-date")
			replace(r, "AKIDEXAMPLE", "AKIDNOBODY")
		}, Mismatch},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := vector{Method: "GET", Path: "/"}.request()
			signFor(r, secret, "/", "", "", now, "host", "x-amz-date")
			test.change(r)
			_, err := suite().Verify(t.Context(), r, nil)
			if reason(err) != test.want || err == nil != (test.want == "") {
				t.Errorf("error = %v (%s), want %q", err, reason(err), test.want)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Error("the error shows the secret")
			}
		})
	}
}

func TestUnknownKeyAndWrongSignatureSayTheSame(t *testing.T) {
	r := vector{Method: "GET", Path: "/", Signed: "host;x-amz-date", Signature: strings.Repeat("0", 64)}.request()
	_, wrong := suite().Verify(t.Context(), r, nil)
	replace(r, "AKIDEXAMPLE", "AKIDNOBODY")
	_, unknown := suite().Verify(t.Context(), r, nil)
	if wrong == nil || unknown == nil || wrong.Error() != unknown.Error() {
		t.Errorf("a wrong signature says %v, an unknown key says %v", wrong, unknown)
	}
}

func TestReplay(t *testing.T) {
	r := vectors(t)[0].request()
	v := suite()
	v.Replay = replayed{}
	if _, err := v.Verify(t.Context(), r, nil); reason(err) != Replayed {
		t.Errorf("error = %v, want that it was used before", err)
	}
	v.Replay = replayed{errors.New("away")}
	if _, err := v.Verify(t.Context(), r, nil); !errors.Is(err, ErrReplayUnknown) {
		t.Errorf("error = %v, want that nobody knows", err)
	}
	// Whoever holds no key fills nothing: what is wrong is not remembered.
	r.Host = "elsewhere"
	if _, err := v.Verify(t.Context(), r, nil); reason(err) != Mismatch {
		t.Errorf("error = %v, want a mismatch, before the replay is asked", err)
	}
}

// TestForms signs as different clients do.
func TestForms(t *testing.T) {
	now := suite().Now()
	secret, _ := suite().Secret("AKIDEXAMPLE")
	for _, test := range []struct {
		name, target, path, query string
		ok                        bool
	}{
		{"curl 7.88, query as sent", "/v1/decisions?state=live&address=203.0.113.7", "/v1/decisions", "state=live&address=203.0.113.7", true},
		{"sorted", "/v1/decisions?state=live&address=203.0.113.7", "/v1/decisions", "address=203.0.113.7&state=live", true},
		{"reversed", "/v1/decisions?a=1&b=2&c=3", "/v1/decisions", "c=3&b=2&a=1", false},
		{"encoded slash as sent", "/v1/accounts/a%2Fb/sessions", "/v1/accounts/a%2Fb/sessions", "", true},
		{"encoded slash twice", "/v1/accounts/a%2Fb/sessions", "/v1/accounts/a%252Fb/sessions", "", true},
		{"encoded slash decoded", "/v1/accounts/a%2Fb/sessions", "/v1/accounts/a/b/sessions", "", false},
		{"encoded percent as sent fits another path", "/v1/accounts/a%252Fb/sessions", "/v1/accounts/a%252Fb/sessions", "", false},
		{"encoded percent twice", "/v1/accounts/a%252Fb/sessions", "/v1/accounts/a%25252Fb/sessions", "", true},
		{"a name without a value", "/?b&a", "/", "a=&b=", true},
		{"plus is a space", "/?a=b+c", "/", "a=b%20c", true},
		{"broken escape", "/?a=%zz", "/", "a=%25zz", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := vector{Method: "GET"}.request()
			r.RequestURI = test.target
			signFor(r, secret, test.path, test.query, "", now, "host", "x-amz-date")
			if _, err := suite().Verify(t.Context(), r, nil); (err == nil) != test.ok {
				t.Errorf("error = %v, want accepted: %v", err, test.ok)
			}
		})
	}
	t.Run("date instead of x-amz-date", func(t *testing.T) {
		r := vector{Method: "GET", Path: "/"}.request()
		r.Header.Set("Date", now.Format(http.TimeFormat))
		signFor(r, secret, "/", "", "", now, "date", "host")
		r.Header.Del("X-Amz-Date")
		if _, err := suite().Verify(t.Context(), r, nil); err != nil {
			t.Error(err)
		}
	})
}

// TestOneSignatureOneMeaning: two targets whose path or parameters differ in
// meaning never share a form, so no signature fits both.
func TestOneSignatureOneMeaning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "%2F", "%25", "%252F", "%2525", "+", "%20", "-", "/"}), 1, 5)
		p, q := "/"+strings.Join(piece.Draw(t, "p"), ""), "/"+strings.Join(piece.Draw(t, "q"), "")
		meaning := func(p string) string {
			var segments []string
			for s := range strings.SplitSeq(withoutDots(p), "/") {
				u, err := url.PathUnescape(s)
				if err != nil {
					t.Fatal(err)
				}
				segments = append(segments, fmt.Sprintf("%q", u))
			}
			return strings.Join(segments, "/")
		}
		if meaning(p) == meaning(q) {
			return
		}
		for _, a := range canonicalPaths(p) {
			for _, b := range canonicalPaths(q) {
				if a == b {
					t.Fatalf("%q and %q are both signed as %q", p, q, a)
				}
			}
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.authorization())
	}
	f.Add("AWS4-HMAC-SHA256 Credential=a/20150830/r/s/aws4_request,SignedHeaders=host,Signature=" + strings.Repeat("f", 64))
	f.Add("AWS4-HMAC-SHA256 ,,,")
	f.Fuzz(func(t *testing.T, value string) {
		a, err := parseAuthorization(value)
		if err != nil {
			return
		}
		again, err := parseAuthorization(a.String())
		if err != nil || again.String() != a.String() || again.signature != a.signature {
			t.Errorf("%q is read as %v, which is read as %v, %v", value, a, again, err)
		}
	})
}

// FuzzTarget: no path or query is too strange for its forms, and a canonical query
// is its own canonical form.
func FuzzTarget(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.Path, v.Query)
	}
	f.Add("/%zz/%", "a=%&=&&b")
	f.Fuzz(func(t *testing.T, path, query string) {
		if forms := canonicalPaths(path); len(forms) < 1 || len(forms) > 3 {
			t.Errorf("path %q has the forms %q", path, forms)
		}
		once := sortedQuery(query)
		if again := sortedQuery(once); again != once {
			t.Errorf("query %q is canonically %q, and that is %q", query, once, again)
		}
	})
}
