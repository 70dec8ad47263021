package limits_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ulule/limiter/v3"

	"github.com/kidoban/kidoban/gateway/limits"
)

func TestParseRate(t *testing.T) {
	tests := []struct {
		text string
		want limiter.Rate
		err  string // part of the error; empty: none
	}{
		{"600/1m", limiter.Rate{Formatted: "600/1m", Limit: 600, Period: time.Minute}, ""},
		{"10/s", limiter.Rate{Formatted: "10/1s", Limit: 10, Period: time.Second}, ""},
		{"1/24h", limiter.Rate{Formatted: "1/24h", Limit: 1, Period: 24 * time.Hour}, ""},
		{"1/d", limiter.Rate{Formatted: "1/24h", Limit: 1, Period: 24 * time.Hour}, ""},
		{" 5 / h ", limiter.Rate{Formatted: "5/1h", Limit: 5, Period: time.Hour}, ""},
		{"1000000000/90s", limiter.Rate{Formatted: "1000000000/90s", Limit: 1_000_000_000, Period: 90 * time.Second}, ""},
		{"600", limiter.Rate{}, "want COUNT/PERIOD"},
		{"600-M", limiter.Rate{}, "want COUNT/PERIOD"},
		{"", limiter.Rate{}, "want COUNT/PERIOD"},
		{"x/1m", limiter.Rate{}, "not a whole number"},
		{"1.5/1m", limiter.Rate{}, "not a whole number"},
		{"99999999999999999999/1m", limiter.Rate{}, "not a whole number"},
		{"0/1m", limiter.Rate{}, "want 1 to 1000000000"},
		{"-1/1m", limiter.Rate{}, "want 1 to 1000000000"},
		{"1000000001/1m", limiter.Rate{}, "want 1 to 1000000000"},
		{"5/x", limiter.Rate{}, "not a duration"},
		{"5/1m/2", limiter.Rate{}, "not a duration"},
		{"5/0s", limiter.Rate{}, "want 1s to 24h"},
		{"5/-1m", limiter.Rate{}, "want 1s to 24h"},
		{"5/999ms", limiter.Rate{}, "want 1s to 24h"},
		{"5/1500ms", limiter.Rate{}, "whole seconds"},
		{"5/25h", limiter.Rate{}, "want 1s to 24h"},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			got, err := limits.ParseRate(test.text)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error = %v, want %q in it", err, test.err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzParseRate holds that what parses is within bounds, and parses again from
// how it is written.
func FuzzParseRate(f *testing.F) {
	for _, seed := range []string{"600/1m", "1/d", "5/1h30m", "0/1s", "1/1500ms", "9/86400s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rate, err := limits.ParseRate(text)
		if err != nil {
			return
		}
		if rate.Limit < 1 || rate.Limit > 1_000_000_000 || rate.Period < time.Second || rate.Period > 24*time.Hour {
			t.Errorf("%q is %+v", text, rate)
		}
		again, err := limits.ParseRate(rate.Formatted)
		if err != nil || again != rate {
			t.Errorf("%q is %+v, %v, want %+v", rate.Formatted, again, err, rate)
		}
	})
}

func TestValidate(t *testing.T) {
	good := func() limits.Limit {
		return limits.Limit{Name: "api", Key: limits.KeyAddress, Rate: limiter.Rate{Limit: 5, Period: time.Minute}}
	}
	tests := []struct {
		name  string
		spoil func(*limits.Limit)
		want  []string // parts of the error
	}{
		{"as it should be", func(*limits.Limit) {}, nil},
		{"no name", func(l *limits.Limit) { l.Name = "" }, []string{"name must be"}},
		{"a name with a quote", func(l *limits.Limit) { l.Name = `a"b` }, []string{"name must be"}},
		{"an unknown key", func(l *limits.Limit) { l.Key = "colour" }, []string{`unknown key "colour"`}},
		{"an unknown mode", func(l *limits.Limit) { l.Mode = "maybe" }, []string{`unknown mode "maybe"`}},
		{"an empty class", func(l *limits.Limit) { l.Match = []string{"login", ""} }, []string{"empty route class"}},
		{"all at once", func(l *limits.Limit) { *l = limits.Limit{} }, []string{"name must be", "unknown key", "count 0"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := good()
			test.spoil(&l)
			err := l.Validate()
			if (err != nil) != (test.want != nil) {
				t.Fatalf("error = %v", err)
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error = %v, want %q in it", err, part)
				}
			}
		})
	}
	for _, b := range []limits.Bucket{{}, {Name: "x"}, {Name: "x", Every: time.Second}, {Name: "x", Every: 48 * time.Hour, Burst: 1}, {Name: "x", Every: time.Second, Burst: 1e9}} {
		if b.Validate() == nil {
			t.Errorf("%+v is valid", b)
		}
	}
	set := loginBuckets()
	for _, b := range []limits.Bucket{set.Network, set.Name, set.Device} {
		if err := b.Validate(); err != nil {
			t.Error(err)
		}
	}
}
