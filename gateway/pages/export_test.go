package pages

import "slices"

// Templates are the names of all templates of views.
func Templates() (names []string) {
	for name := range templates["en"] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TemplateOf and TitleOf are the template and the key of the title that v is shown with.
func TemplateOf(v View) string { return v.screen().template }
func TitleOf(v View) string    { return v.screen().title }

// Phrases are the words of all keys, in English and in Japanese.
func Phrases() map[string][2]string {
	all := make(map[string][2]string, len(phrases))
	for key, p := range phrases {
		all[key] = [2]string{p.en, p.ja}
	}
	return all
}

// File is one that pages are made of.
func File(name string) string { return string(read(name)) }

var (
	Line   = line
	Local  = local
	Moment = moment
	QRCode = qrCode
	Span   = span
)
