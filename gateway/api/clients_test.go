package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// live is a server with today's clock that real clients reach. Every exchange is
// held to the contract.
func live(t *testing.T, change ...func(*server)) (*server, string) {
	s := newServer(t, append(change, func(s *server) { s.today = true })...)
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := s.do(r)
		maps.Copy(w.Header(), got.Header())
		w.WriteHeader(got.Code)
		_, _ = w.Write(got.Body.Bytes()) // a client that went away is not our failure
	}))
	t.Cleanup(listener.Close)
	return s, listener.URL
}

// tool finds a program. Where it is missing the test is skipped, but not in CI.
func tool(t *testing.T, name string, places ...string) string {
	t.Helper()
	for _, place := range places {
		if path, err := filepath.Abs(place); err == nil {
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: .ci/run installs it", name)
		}
		t.Skipf("%s is not installed: %v", name, err)
	}
	return path
}

func run(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	return string(out), err
}

// TestNewman runs the collection with Postman's own runner.
func TestNewman(t *testing.T) {
	newman := tool(t, "newman", "../../.ci/cache/node_modules/.bin/newman")
	s, base := live(t)
	for _, service := range []string{"kidoban", "execute-api"} {
		out, err := run(t, newman, "run", "testdata/blocklist.postman_collection.json", "--color", "off", "--bail",
			"--env-var", "base="+base, "--env-var", "access_key="+accessKey, "--env-var", "secret_key="+secret, "--env-var", "service="+service)
		if err != nil {
			t.Fatalf("newman, service %s: %v\n%s\n%s", service, err, out, s.log.String())
		}
	}
	out, err := run(t, newman, "run", "testdata/blocklist.postman_collection.json", "--color", "off", "--folder", "register",
		"--env-var", "base="+base, "--env-var", "access_key="+accessKey, "--env-var", "secret_key=wrong", "--reporters", "cli")
	if err == nil || !strings.Contains(out, "403") {
		t.Errorf("newman with a wrong secret: %v\n%s", err, out)
	}
}

// curl runs curl with a signature and returns the status and the body.
func curl(t *testing.T, args ...string) (status string, body map[string]any) {
	t.Helper()
	out, err := run(t, tool(t, "curl"), append([]string{"--silent", "--show-error", "--write-out", "\n%{http_code}"}, args...)...)
	if err != nil {
		t.Fatalf("curl %q: %v %s", args, err, out)
	}
	i := strings.LastIndexByte(out, '\n')
	if i > 0 {
		if err := json.Unmarshal([]byte(out[:i]), &body); err != nil {
			t.Fatalf("curl %q: %q is not JSON: %v", args, out, err)
		}
	}
	return out[i+1:], body
}

func TestCurl(t *testing.T) {
	s, base := live(t)
	signed := func(args ...string) []string {
		return append([]string{"--aws-sigv4", "aws:amz:ap-northeast-1:kidoban", "--user", accessKey + ":" + secret}, args...)
	}
	post := func(body string) []string {
		return []string{"--header", "Content-Type: application/json", "--data", body, base + "/v1/decisions"}
	}
	status, made := curl(t, signed(post(registration)...)...)
	if status != "201" {
		t.Fatalf("register = %s %v\n%s", status, made, s.log.String())
	}
	id, _ := made["id"].(string)
	for _, query := range []string{"?address=203.0.113.7&state=live", "?state=live&address=203.0.113.7"} { // curl 7.88 does not sort
		if status, list := curl(t, signed(base+"/v1/decisions"+query)...); status != "200" || len(list["decisions"].([]any)) != 1 {
			t.Errorf("list%s = %s %v", query, status, list)
		}
	}
	if status, d := curl(t, signed(base+"/v1/decisions/"+id)...); status != "200" || d["by"] != "alice" || d["reason"] != "list attack" {
		t.Errorf("get = %s %v", status, d)
	}
	if status, list := curl(t, signed(base+"/v1/accounts/a%2Fb/sessions")...); status != "200" {
		t.Errorf("an account with a slash = %s %v", status, list)
	}
	if status, d := curl(t, signed(post(strings.Replace(registration, "30s", "60s", 1))...)...); status != "200" || d["id"] != id || d["until"] == made["until"] {
		t.Errorf("extend = %s %v", status, d)
	}
	if status, p := curl(t, signed(post(strings.Replace(registration, "203.0.113.7", "203.0.113.7/33", 1))...)...); status != "422" || !strings.Contains(p["detail"].(string), "value") {
		t.Errorf("bad prefix = %s %v", status, p)
	}
	if status, p := curl(t, signed("--data", "scope=address", base+"/v1/decisions")...); status != "415" {
		t.Errorf("not JSON = %s %v", status, p)
	}
	if status, d := curl(t, signed("--request", "DELETE", base+"/v1/decisions/"+id)...); status != "200" || d["lifted_by"] != "alice" {
		t.Errorf("lift = %s %v", status, d)
	}

	if status, _ := curl(t, base+"/v1/decisions"); status != "403" {
		t.Errorf("unsigned = %s", status)
	}
	if status, _ := curl(t, "--aws-sigv4", "aws:amz:ap-northeast-1:kidoban", "--user", accessKey+":wrong", base+"/v1/decisions"); status != "403" {
		t.Errorf("wrong key = %s", status)
	}
	if status, _ := curl(t, "--aws-sigv4", "aws:amz:ap-northeast-1:s3", "--user", accessKey+":"+secret, base+"/v1/decisions"); status != "403" {
		t.Errorf("another service = %s", status)
	}
	if status, _ := curl(t, signed("--header", "X-Amz-Date: 20200101T000000Z", base+"/v1/decisions")...); status != "403" {
		t.Errorf("old date = %s", status)
	}
}

// TestCurlTampered changes and repeats on the way what curl signed.
func TestCurlTampered(t *testing.T) {
	s, _ := live(t)
	type plan struct {
		change func(*http.Request) // to what curl sent
		repeat bool
	}
	plans, statuses := make(chan plan, 1), make(chan int, 1)
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		again := func() *http.Request {
			c := r.Clone(context.Background())
			c.Body = io.NopCloser(bytes.NewReader(body))
			return c
		}
		p, first := <-plans, again()
		if p.change != nil {
			p.change(first)
		}
		got := s.do(first)
		if p.repeat {
			got = s.do(again())
		}
		statuses <- got.Code
		w.WriteHeader(http.StatusNoContent)
	}))
	defer between.Close()
	for _, test := range []struct {
		name   string
		change func(*http.Request)
		repeat bool
		want   int
	}{
		{"as signed", nil, false, 201},
		{"replayed", nil, true, 403},
		{"body", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(registration)) }, false, 403},
		{"path", func(r *http.Request) { r.RequestURI, r.URL.Path = "/v1/health", "/v1/health" }, false, 403},
		{"query", func(r *http.Request) { r.RequestURI += "?state=any" }, false, 403},
	} {
		plans <- plan{test.change, test.repeat}
		// Each call is another one, so that none has the signature of another.
		body := strings.Replace(registration, "list attack", test.name, 1)
		curl(t, "--aws-sigv4", "aws:amz:ap-northeast-1:kidoban", "--user", accessKey+":"+secret,
			"--header", "Content-Type: application/json", "--data", body, between.URL+"/v1/decisions")
		if got := <-statuses; got != test.want {
			t.Errorf("%s = %d, want %d\n%s", test.name, got, test.want, s.log.String())
		}
	}
}
