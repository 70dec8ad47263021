package mail

import (
	"maps"
	"slices"
	"text/template"

	"github.com/kidoban/kidoban/policies"
)

var (
	ParseServer = func(raw string) error { _, err := parseServer(raw); return err }
	Clean       = clean
	Unlinked    = unlinked
	Judge       = judge
)

// Known are the names of the values that a notice can have.
func Known() []string { return slices.Sorted(maps.Keys(known)) }

// Texts are the templates of a language.
func Texts(language string) *template.Template { return texts[language] }

// Values has every value that a template can say.
type Values = values

// Compose writes the message that tells the address to of n.
func (m *Mailer) Compose(to string, n policies.Notice) ([]byte, error) {
	a, err := ParseAddress(to)
	if err != nil {
		return nil, err
	}
	return m.compose(a, n)
}
