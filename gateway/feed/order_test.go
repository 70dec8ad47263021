package feed_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/feed"
)

const start = 1_795_478_400 // 2026-11-24T00:00:00Z

// log is a log of attempts at seconds after start; the id is the place in it.
func log(seconds ...float64) string {
	var b strings.Builder
	for i, s := range seconds {
		fmt.Fprintf(&b, "{\"id\":%d,\"time\":%f}\n", i, start+s)
	}
	return b.String()
}

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name    string
		seconds []float64
		want    string // id@second
		told    int
	}{
		{"in order", []float64{0, 1, 2}, "0@0 1@1 2@2", 0},
		{"equal times in the order of the log", []float64{1, 0, 1, 0}, "1@0 3@0 0@1 2@1", 0},
		{"within 5 minutes", []float64{0, 299, 1, 300, 2}, "0@0 2@1 4@2 1@299 3@300", 0},
		{"too late", []float64{0, 10, 400, 5, 9}, "0@0 1@10 3@10 4@10 2@400", 2},
		{"far ahead", []float64{0, 1e8, 1, 3, 2}, "0@0 2@1 3@3 4@3 1@100000000", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			all, told, _ := read(t, strings.NewReader(log(c.seconds...)), "jsonl", feed.Options{})
			var got []string
			for _, a := range all {
				got = append(got, fmt.Sprintf("%s@%d", a.ID, a.Event.Time.Unix()-start))
			}
			if s := strings.Join(got, " "); s != c.want || len(told) != c.told {
				t.Errorf("got %s and %d told, want %s and %d: %v", s, len(told), c.want, c.told, told)
			}
		})
	}
}

// TestOrderIsBounded reads one attempt of next year among very many of today: it is not
// held for ever, takes nobody along, and attempts are sorted again when it is gone. Nor
// is a busy minute held as a whole.
func TestOrderIsBounded(t *testing.T) {
	const many, ahead = 100_000, 1000
	r, w := io.Pipe()
	go func() {
		for i := range many {
			at := start + float64(i)/1000
			switch {
			case i == ahead:
				at += 1e7
			case i > 90_000 && i%2 == 1:
				at -= 2
			}
			if _, err := fmt.Fprintf(w, "{\"id\":%d,\"time\":%f}\n", i, at); err != nil {
				return
			}
		}
		_ = w.Close()
	}()
	defer r.Close()
	var told []string
	reader, err := feed.Open(r, "jsonl", feed.Options{Now: now, Fault: func(line int, err error) { told = append(told, fmt.Sprint(line, ": ", err)) }})
	if err != nil {
		t.Fatal(err)
	}
	var most, returned int
	last := start
	for {
		a, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		returned++
		most = max(most, reader.Counts().Attempts-returned)
		at := int(a.Event.Time.Unix())
		if at < last || at > start+many/1000 {
			t.Fatalf("attempt %s at %d after one at %d", a.ID, at-start, last-start)
		}
		last = at
		if string(a.ID) == fmt.Sprint(ahead) && returned > 5*16_384+ahead {
			t.Errorf("the attempt of next year was returned as number %d", returned)
		}
	}
	if returned != many || most > 16_384 {
		t.Errorf("returned %d of %d attempts and held %d, want at most 16384", returned, many, most)
	}
	if len(told) != 1 || !strings.Contains(told[0], "far behind") {
		t.Errorf("told %d things, want the one attempt: %v", len(told), told[:min(len(told), 5)])
	}
}

// TestLongLines are passed over, and the lines around them read.
func TestLongLines(t *testing.T) {
	long := `{"time":1,"name":"` + strings.Repeat("x", 64<<10) + `"}`
	all, told, counts := read(t, strings.NewReader("\ufeff"+`{"time":1}`+"\r\n"+long+"\n"+`{"time":2}`+"\n"+long), "jsonl", feed.Options{})
	if len(all) != 2 || counts.Faults != 2 || counts.Lines != 4 || !slices.Equal(told, []string{"2: longer than 64 KiB", "4: longer than 64 KiB"}) {
		t.Errorf("got %d attempts, %+v, told %v", len(all), counts, told)
	}
}
