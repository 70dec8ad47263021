package outbox

var (
	Sign        = sign
	Refusal     = refusal
	ParseTarget = parseTarget
	ParseSecret = parseSecret
)
