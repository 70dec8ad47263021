package pages

import (
	"strings"

	"golang.org/x/text/language"
	"golang.org/x/text/language/display"
)

// Masked is a mail address as it is shown to whoever has only the password: enough
// for its owner to know it, too little to write to.
func Masked(address string) string {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || local == "" {
		return "•••"
	}
	first := []rune(local)[0]
	return string(first) + "•••@" + domain
}

// countries are the names of countries, by the language of a page.
var countries = map[string]display.Namer{"en": display.Regions(language.English), "ja": display.Regions(language.Japanese)}

// Place is the name of a country (ISO 3166) in lang, "" where it is none.
func Place(lang, country string) string {
	region, err := language.ParseRegion(country)
	if err != nil || !region.IsCountry() {
		return ""
	}
	names, ok := countries[lang]
	if !ok {
		names = countries["en"]
	}
	return names.Name(region)
}
