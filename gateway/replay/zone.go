package replay

import (
	"context"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// InZone is s, and shows the clock of a zone where an event of s shows that of UTC: those
// of a record do, and those of a spool from before gates had other clocks. A nil zone
// changes nothing.
func InZone(s Source, zone *time.Location) Source {
	if zone == nil {
		return s
	}
	return &inZone{s, zone}
}

type inZone struct {
	Source
	zone *time.Location
}

func (s *inZone) Read(ctx context.Context, each func(*Recorded) error) error {
	return s.Source.Read(ctx, func(r *Recorded) error {
		for _, e := range [...]*detectors.Event{&r.Event, &r.Known} {
			if e.Kind != "" && e.Offset == 0 && e.Shift == 0 {
				e.Offset = rules.Ahead(s.zone, e.Time)
			}
		}
		return each(r)
	})
}
