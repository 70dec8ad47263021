package feed

import (
	"errors"
	"strings"
	"time"
)

// stamps reads the time stamps of syslog lines. Those of RFC 3164 section 4.1.2 have
// neither year nor zone: they are read as UTC, in the year that follows from the stamps
// before.
type stamps struct {
	year int       // of the first; 0: the latest that is not after now
	now  time.Time // a day is allowed for zones
	last time.Time // of those without a year
}

var errStamp = errors.New("no time stamp: want one as Jan _2 15:04:05 or in RFC 3339")

// cut takes the time stamp off a line.
func (s *stamps) cut(line string) (t time.Time, rest string, err error) {
	const classic = "Jan _2 15:04:05"
	if len(line) > len(classic) && line[len(classic)] == ' ' {
		if t, err := time.Parse(classic, line[:len(classic)]); err == nil {
			t, err = s.withYear(t)
			return t, line[len(classic)+1:], err
		}
	}
	first, rest, _ := strings.Cut(line, " ")
	t, err = time.Parse(time.RFC3339, first)
	if err != nil {
		t, err = time.Parse("2006-01-02T15:04:05Z0700", first)
	}
	if err != nil || t.Unix() <= 0 || t.Year() > 2200 {
		return time.Time{}, "", errStamp
	}
	return t.UTC(), rest, nil
}

// withYear gives a stamp its year: that of the stamp before it, the next one when it is
// more than half a year earlier in that, and the one before when that puts it at
// most a day before the stamp before it, as on New Year's Eve.
func (s *stamps) withYear(t time.Time) (time.Time, error) {
	year := s.year
	switch {
	case !s.last.IsZero():
		year = s.last.Year()
		if earlier := in(t, year-1); s.last.Sub(earlier) <= 24*time.Hour {
			year--
		} else if s.last.Sub(in(t, year)) > 182*24*time.Hour {
			year++
		}
	case year == 0:
		year = s.now.Year() + 1
		for year > 1970 && (in(t, year).After(s.now.Add(24*time.Hour)) || in(t, year).Day() != t.Day()) {
			year--
		}
	}
	at := in(t, year)
	if at.Day() != t.Day() {
		return time.Time{}, errors.New("a 29th of February in a year without one: tell the year of the first line")
	}
	if at.After(s.last) {
		s.last = at
	}
	return at, nil
}

func in(t time.Time, year int) time.Time {
	return time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}
