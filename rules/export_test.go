package rules

import "github.com/kidoban/kidoban/detectors"

// Counting opens one counter for comparing it with a list of events.
type Counting struct{ c *counter }

func NewCounting(spec Counter) Counting { return Counting{newCounter(spec, nil)} }

func (c Counting) Observe(e detectors.Event)     { _ = c.c.observe(&facts{event: &e}) }
func (c Counting) Value(e detectors.Event) int64 { return c.c.value(&e) }
func (c Counting) Sizes() (keys, members int)    { return len(c.c.keys), c.c.members }

const (
	MaxKeys     = maxKeys
	MaxDistinct = maxDistinct
)

// Variables lists what conditions can say of an event: name, type, meaning.
func Variables() (rows [][3]string) {
	for _, v := range variables {
		rows = append(rows, [3]string{v.name, v.kind.TypeName(), v.meaning})
	}
	return rows
}
