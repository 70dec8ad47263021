package detectors

import "time"

// Default returns the detectors that ship. learningUntil is the end of the
// learning window, installation time plus 24 h; the zero time means none.
func Default(learningUntil time.Time) *Set {
	return NewSet(
		NewHistories(HistoriesConfig{}), // first: it informs the others
		NewPasswords(PasswordsConfig{}),
		NewSequential(SequentialConfig{LearningUntil: learningUntil}),
		NewPrefixes(PrefixesConfig{LearningUntil: learningUntil}),
		NewClients(ClientsConfig{LearningUntil: learningUntil}),
		NewPenalty(PenaltyConfig{LearningUntil: learningUntil}),
		NewNames(NamesConfig{LearningUntil: learningUntil}),
		NewAccounts(AccountsConfig{}),
		NewLoops(LoopsConfig{LearningUntil: learningUntil}),
		NewCampaigns(CampaignsConfig{}),
	)
}
