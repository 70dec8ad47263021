package replay_test

import "strings"

// manyNames is a rule that a network hits where so many names failed in ten minutes.
func manyNames(most string) string {
	return strings.ReplaceAll(`id: try.many-names
title: One network fails with many names
severity: high
owner: security-team
reason: People have one name or two.
review_by: 2027-05-31
count:
  failed: {distinct: name, by: source.network, within: 10m, where: outcome == "failure"}
on: login.after
when: failed >= MOST
then:
  - decide: {scope: source.network, action: step_up, for: 30m}
mode: shadow
tests:
  - name: a list
    given: [{repeat: 40, name: "user{n}", outcome: failure}]
    expect: {action: step_up, scope: source.network}
  - name: two colleagues
    given: [{repeat: 2, name: "user{n}", outcome: failure}]
    expect: none
`, "MOST", most)
}
