package limits_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/gateway/limits"
)

func TestSetFields(t *testing.T) {
	tests := []struct {
		name  string
		limit string // of the limit's name
		mode  limits.Mode
		rate  string
		hits  int
		want  http.Header
	}{
		{"within", "api", "", "5/1m", 1, http.Header{
			"Ratelimit-Policy": {`"api";q=5;w=60`}, "Ratelimit": {`"api";r=4;t=60`}}},
		{"the last one", "api", "", "2/1h", 2, http.Header{
			"Ratelimit-Policy": {`"api";q=2;w=3600`}, "Ratelimit": {`"api";r=0;t=3600`}}},
		{"refused", "api", "", "2/10s", 3, http.Header{
			"Ratelimit-Policy": {`"api";q=2;w=10`}, "Ratelimit": {`"api";r=0;t=10`}, "Retry-After": {"10"}}},
		{"a name that needs quoting", `a"b\cé`, "", "2/10s", 1, http.Header{
			"Ratelimit-Policy": {`"a\"b\\c?";q=2;w=10`}, "Ratelimit": {`"a\"b\\c?";r=1;t=10`}}},
		{"shadow is not told", "api", limits.Shadow, "2/10s", 9, http.Header{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			clock := newClock()
			l := limits.New(limits.NewStore(0, clock.now), clock.now)
			limit := newLimit(t, test.limit, test.rate, test.mode)
			var d limits.Decision
			for range test.hits {
				d = l.Take(context.Background(), []limits.Charge{{Limit: limit, Key: "k"}})
			}
			got := http.Header{}
			limits.SetFields(got, d)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for wait, want := range map[time.Duration]string{
		-time.Second: "1", 0: "1", 1: "1", time.Second: "1", time.Second + 1: "2", time.Hour: "3600",
	} {
		if got := limits.RetryAfter(wait); got != want {
			t.Errorf("RetryAfter(%s) = %s, want %s", wait, got, want)
		}
	}
}

func TestLoginRetryAfter(t *testing.T) {
	tests := []struct {
		wait   time.Duration
		random float64
		want   time.Duration
	}{
		{0, 0, 10 * time.Second}, {-time.Hour, 0, 10 * time.Second}, {1, 0, 10 * time.Second},
		{10 * time.Second, 0, 10 * time.Second}, {10*time.Second + 1, 0, 20 * time.Second},
		{10 * time.Second, 0.25, 20 * time.Second}, {10 * time.Second, 0.999, 40 * time.Second},
		{10 * time.Second, 1e300, 10 * time.Second}, {10 * time.Second, -1, 10 * time.Second},
	}
	for _, test := range tests {
		if got := limits.LoginRetryAfter(test.wait, test.random); got != test.want {
			t.Errorf("LoginRetryAfter(%s, %g) = %s, want %s", test.wait, test.random, got, test.want)
		}
	}
}
