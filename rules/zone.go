package rules

import (
	"fmt"
	"time"
)

// Zone is the time zone of a name in the IANA database, such as Asia/Tokyo, or UTC. The
// database is the machine's, or else what the program has embedded (package time/tzdata).
func Zone(name string) (*time.Location, error) {
	if name != "" && name != "Local" { // of which time makes UTC, and the machine's own
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	return nil, fmt.Errorf("no time zone is called %.60q: want a name of the IANA database, such as Asia/Tokyo, or UTC", name)
}

// Ahead is by how many minutes the clocks of a zone are ahead of UTC at a time, as
// [detectors.Event] has it.
func Ahead(zone *time.Location, at time.Time) int16 {
	_, seconds := at.In(zone).Zone()
	return int16(seconds / 60)
}
