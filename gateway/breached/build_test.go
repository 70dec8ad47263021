package breached_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/breached"
)

func listed(i int) string { return fmt.Sprintf("listed-%d", i) }
func other(i int) string  { return fmt.Sprintf("other-%d", i) }

func line(password string, count int) string {
	return fmt.Sprintf("%X:%d\r\n", sha1.Sum([]byte(password)), count)
}

func write(t testing.TB, file, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// build makes a file from passwords, each seen ten times.
func build(t testing.TB, file string, passwords ...string) string {
	t.Helper()
	var list strings.Builder
	for _, p := range passwords {
		list.WriteString(line(p, 10))
	}
	if _, err := breached.Build(t.Context(), file, []string{"-"}, breached.BuildOptions{Stdin: strings.NewReader(list.String())}); err != nil {
		t.Fatal(err)
	}
	return file
}

func open(t testing.TB, file string) *breached.Filter {
	t.Helper()
	f, err := breached.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func contains(f *breached.Filter, password string) bool {
	return f.Contains(sha1.Sum([]byte(password)))
}

// TestFilter: every password of the list is found, and at most 0.4% of others.
func TestFilter(t *testing.T) {
	const n, others = 200_000, 1_000_000
	passwords := make([]string, n)
	for i := range passwords {
		passwords[i] = listed(i)
	}
	file := build(t, filepath.Join(t.TempDir(), "list"), append(passwords, passwords[:1000]...)...)
	f := open(t, file)
	if f.Keys != n {
		t.Errorf("%d keys, want %d: a password that is listed twice is one", f.Keys, n)
	}
	for _, p := range passwords {
		if !contains(f, p) {
			t.Fatalf("%s is not found", p)
		}
	}
	wrong := 0
	for i := range others {
		if contains(f, other(i)) {
			wrong++
		}
	}
	// 1/256 of a million is 3,906, with a deviation of 62.
	if share := float64(wrong) / others; share > 0.0042 || share < 0.0036 {
		t.Errorf("%.3f%% of other passwords are found, want 0.39%%", share*100)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.2f bits a key, %d of %d others found", float64(info.Size()*8)/n, wrong, others)
	runtime.KeepAlive(f)
}

func TestBuild(t *testing.T) {
	dir := t.TempDir()
	date := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	single := write(t, filepath.Join(dir, "single.txt"), line("seen-often", 900)+strings.ToLower(line("seen-ten", 10))+"\n"+line("seen-nine", 9)+strings.TrimSpace(line("last", 11)))
	if err := os.Chtimes(single, date, date); err != nil {
		t.Fatal(err)
	}
	ranged := line("in-a-range", 77)
	write(t, filepath.Join(dir, "ranges", ranged[:5]+".txt"), ranged[5:]+strings.Repeat("0", 35)+":0\r\n")
	if err := os.Chtimes(filepath.Join(dir, "ranges", ranged[:5]+".txt"), date, date.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	made, err := breached.Build(t.Context(), out, []string{single, filepath.Join(dir, "ranges")}, breached.BuildOptions{Min: 10})
	if err != nil {
		t.Fatal(err)
	}
	if made.Read != 6 || made.Keys != 4 || !made.Date.Equal(date) {
		t.Errorf("= %+v, want 4 keys of 6 entries as of %v", made, date)
	}
	f := open(t, out)
	if f.Keys != 4 || f.Min != 10 || !f.Date.Equal(date) {
		t.Errorf("the file says %d keys, at least %d times, %v", f.Keys, f.Min, f.Date)
	}
	for password, want := range map[string]bool{"seen-often": true, "seen-ten": true, "seen-nine": false, "last": true, "in-a-range": true, "": false} {
		if got := contains(f, password); got != want {
			t.Errorf("%q: %v, want %v", password, got, want)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 3 {
		t.Errorf("the folder holds %v, want the lists and the file alone", left)
	}
}

func TestBuildRefuses(t *testing.T) {
	const secret = "hunter2"
	good := line("a", 1)
	for name, c := range map[string]struct{ text, want string }{
		"ntlm":       {good + strings.Repeat("A", 32) + ":5\n", "line 2: has an NTLM hash"},
		"no count":   {good[:40] + "\n", "has no count"},
		"bad count":  {good[:41] + secret + "\n", "no number"},
		"negative":   {good[:41] + "-1\n", "no number"},
		"passwords":  {"alice:" + secret + "\n", "want HASH:COUNT, with a SHA-1"},
		"not hex":    {strings.Repeat("G", 40) + ":1\n", "want HASH:COUNT, with a SHA-1"},
		"long line":  {good + strings.Repeat(secret, 20_000), "line 2: is longer"},
		"empty":      {"", "none of the 0 entries"},
		"none often": {line("a", 0), "none of the 1 entries was seen 1 times"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			out := write(t, filepath.Join(dir, "out"), "before")
			_, err := breached.Build(t.Context(), out, []string{"-"}, breached.BuildOptions{Stdin: strings.NewReader(c.text)})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("= %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the error %q tells what is in the list", err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("it left %v", left)
			}
			if text, err := os.ReadFile(out); err != nil || string(text) != "before" {
				t.Errorf("the file before is %q, %v", text, err)
			}
		})
	}
	dir := t.TempDir()
	for _, list := range []string{
		filepath.Join(dir, "nothing"),
		filepath.Dir(write(t, filepath.Join(dir, "foreign", "list.txt"), good)),
		t.TempDir(),
	} {
		if _, err := breached.Build(t.Context(), filepath.Join(dir, "out"), []string{list}, breached.BuildOptions{}); err == nil {
			t.Errorf("%s was taken", list)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := breached.Build(ctx, filepath.Join(dir, "out"), []string{"-"}, breached.BuildOptions{Stdin: strings.NewReader(good)}); !errors.Is(err, context.Canceled) {
		t.Errorf("a build that was given up = %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	content, err := os.ReadFile(build(t, filepath.Join(dir, "good"), listed(1), listed(2)))
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int) []byte {
		b := bytes.Clone(content)
		b[at] ^= 1
		return b
	}
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"empty":       {nil, "was not made by"},
		"foreign":     {[]byte(strings.Repeat("<html>", 100)), "was not made by"},
		"cut header":  {content[:20], "cut off"},
		"cut":         {content[:len(content)-40], "cut off"},
		"cut by one":  {content[:len(content)-1], "cut off"},
		"version":     {change(8), "version 0"},
		"shards":      {change(12), "damaged"},
		"date":        {change(16), "checksum"},
		"checksum":    {change(len(content) - 1), "checksum"},
		"longer":      {append(bytes.Clone(content), 0), "1 bytes follow"},
		"shard":       {change(32 + 12), "damaged"},
		"empty shard": {change(32 + 4), "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := breached.Open(write(t, filepath.Join(dir, "bad"), string(c.content))); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("= %v, want %q", err, c.want)
			}
		})
	}
	for _, file := range []string{dir, filepath.Join(dir, "nothing")} {
		if _, err := breached.Open(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// FuzzParse: what has the right checksum and reads as a file can be asked anything.
func FuzzParse(f *testing.F) {
	content, err := os.ReadFile(build(f, filepath.Join(f.TempDir(), "good"), listed(1), listed(2), listed(3)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content[:len(content)-32])
	f.Add(content[:100])
	f.Fuzz(func(t *testing.T, content []byte) {
		_, _ = breached.Parse(content)
		filter, err := breached.Parse(breached.Sealed(content))
		if err != nil {
			return
		}
		for i := range 256 {
			sum := sha1.Sum([]byte(other(i)))
			for first := range 256 {
				sum[0] = byte(first)
				filter.Contains(sum)
			}
		}
	})
}

func BenchmarkContains(b *testing.B) {
	passwords := make([]string, 100_000)
	for i := range passwords {
		passwords[i] = listed(i)
	}
	f := open(b, build(b, filepath.Join(b.TempDir(), "list"), passwords...))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		contains(f, passwords[i%len(passwords)])
	}
}
