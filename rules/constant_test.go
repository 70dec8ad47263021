package rules_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/rules"
)

// A part of a condition that cannot change is told; one that can is not.
func TestConstantConditions(t *testing.T) {
	const context = ", given what stands before it"
	for _, test := range []struct{ when, want string }{
		// Ranges of variables, signals and counters.
		{`tried >= 0`, "tried >= 0 is always true"},
		{`tried < 0`, "tried < 0 is always false"},
		{`tried >= 3 && campaign.rank >= 0`, "campaign.rank >= 0 is always true" + context},
		{`tried >= 3 && campaign.rank > 1`, "campaign.rank > 1"},
		{`tried >= 3 && campaign.rank == 0.5`, ""},
		{`tried >= 3 && source.penalty > 1e9`, ""},
		{`tried >= 3 && password.popularity > 48`, "is always false" + context},
		{`tried >= 3 && source.asn < 4294967296`, "is always true" + context},
		{`tried >= 3 && tried == 3.5`, "tried == 3.5 is always false" + context},
		{`tried >= 3 && source.capacity >= 1000`, ""},
		{`tried >= 3 && local.hour > 23`, "local.hour > 23 is always false" + context},
		{`tried >= 3 && local.hour >= 23`, ""},
		{`tried >= 3 && local.weekday in [6, 7]`, ""},
		{`tried >= 3 && local.weekday == 7`, "local.weekday == 7 is always false" + context},
		{`tried >= 3 && (local.hour >= 22 || local.hour < 6) && local.hour >= 0`, "local.hour >= 0 is always true" + context},
		// What stands before.
		{`tried > 5 && tried < 3`, "tried < 3 is always false" + context},
		{`tried > 5 && tried < 7`, ""},
		{`tried > 5 && tried < 6`, "tried < 6 is always false" + context},
		{`source.penalty > 5.0 && source.penalty < 6.0`, ""},
		{`tried > 5 && tried >= 3`, "tried >= 3 is always true" + context},
		{`tried >= 3 && tried >= 5`, ""},
		{`tried == 3 && tried != 3`, "tried != 3 is always false" + context},
		{`tried != 0 && tried >= 1`, "tried >= 1 is always true" + context},
		{`tried >= 3 || tried < 3`, "tried < 3 is always true" + context},
		{`tried >= 3 || tried < 2`, ""},
		{`!(tried >= 3) && tried > 5`, "tried > 5 is always false" + context},
		{`(tried > 5 || device.known) && tried < 3`, ""},
		{`tried > 5 && device.known && (ambiguous || tried < 3)`, "tried < 3 is always false" + context},
		{`tried > 5 ? tried < 3 : ambiguous`, "tried < 3 is always false" + context},
		{`5 < tried && 3 > tried`, "3 > tried is always false" + context},
		// Words.
		{`tried >= 3 && outcome == "failed"`, `outcome == "failed" is always false` + context},
		{`tried >= 3 && outcome != "failure" && outcome == "failure"`, "is always false" + context},
		{`tried >= 3 && (outcome == "failure" || outcome != "failure")`, "is always true" + context},
		{`tried >= 3 && outcome in ["failure", "refused"] && outcome == "success"`, "is always false" + context},
		{`tried >= 3 && outcome in ["failure", "refused"] && outcome == "refused"`, ""},
		{`tried >= 3 && device.state in ["known"]`, "is always false" + context},
		{`tried >= 3 && source.country == "JP" && source.country == "KR"`, "is always false" + context},
		{`tried >= 3 && source.country != "JP" && source.country != "KR"`, ""},
		{`tried >= 3 && source.country in []`, "is always false" + context},
		// Truths.
		{`tried >= 3 && device.known && !device.known`, "device.known is always true" + context},
		{`tried >= 3 && (device.known || !device.known)`, "device.known is always false" + context},
		{`tried >= 3 && device.known == true`, ""},
		{`tried >= 3 && device.known && device.known == false`, "is always false" + context},
		// Folding, and what names nothing.
		{`source.asn == 0 || true`, "true names nothing that can change"},
		{`tried >= 3 && 1 + 1 == 2`, "names nothing that can change"},
		{`tried >= 3 && "abc".startsWith("a")`, "names nothing that can change"},
		{`tried > 2 * 3 && tried < 10 - 5`, "tried < 10 - 5 is always false" + context},
		{`tried * 20 < tried + 100`, ""},
		{`tried * 20 < -1`, "is always false"},
		{`double(tried) / 2.0 < 0.0`, ""}, // divisions are not followed
		// An expression against itself.
		{`tried == tried`, "is always true"},
		{`tried >= 3 && source.capacity * 2 < source.capacity * 2`, "is always false" + context},
		{`tried / tried >= tried / tried`, ""},
	} {
		t.Run(test.when, func(t *testing.T) {
			_, errs := rules.Load(folder("a.yaml", edited(t, "when: tried >= 3", "when: |\n  "+test.when)))
			var told []string
			for _, err := range errs {
				if text := err.Error(); strings.Contains(text, "is always") || strings.Contains(text, "names nothing") {
					told = append(told, text)
				}
			}
			switch {
			case test.want == "" && len(told) > 0:
				t.Errorf("got %q, want nothing: it can change", told)
			case test.want != "" && (len(told) != 1 || !strings.Contains(told[0], "a.yaml:11:") || !strings.Contains(told[0], test.want)):
				t.Errorf("got %q, want one: %s", told, test.want)
			}
		})
	}
	share := edited(t, "count: events", "ratio: device.known", "tried >= 3", "tried > 1")
	if _, errs := rules.Load(folder("a.yaml", share)); len(errs) != 1 || !strings.Contains(errs[0].Error(), "tried > 1 is always false") {
		t.Errorf("a share above 1: got %v", errs)
	}
}

// FuzzCondition: whatever is written as a condition is compiled or told, and what is
// said to be always so is so, whatever the variables are.
func FuzzCondition(f *testing.F) {
	for _, when := range []string{
		"tried > 5 && tried < 3", "tried >= 3 || share > 0.5 && !device.known", `outcome in ["failure", "refused"] ? tried > 1 : ambiguous`,
		`source.asn == 0 || source.country.startsWith("J")`, "campaign.rank * 2.0 - share >= 0.0", `inNetwork(source.address, "10.0.0.0/8")`,
		"-tried < 3 && tried + 2 > size(account)", `time.getHours("Asia/Tokyo") >= 22`, "local.hour * 2 - local.weekday > 40", `name.domain.lowerAscii() == "acme.example"`, "double(tried) / 0.0 > 1.0",
		"tried != 0 && 100 / tried < 7", "prefix.flagged == 1 && prefix.flagged != tried", "((((tried))))>0", `"\u00e9".matches("[")`,
	} {
		f.Add(when, uint64(1))
	}
	f.Fuzz(func(t *testing.T, when string, seed uint64) {
		if err := rules.Constancy(when, rand.New(rand.NewPCG(seed, 1))); err != nil {
			t.Error(err)
		}
	})
}
