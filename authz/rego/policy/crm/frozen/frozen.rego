# METADATA
# title: Frozen records
# description: >-
#   A record whose state is final is not changed any more, whoever asks: an accepted quote, an ended
#   contract. Which states are final is data. Who has the record is none of what it says: it changes hands when its
#   owner leaves, as any other. A purge is the end of what was deleted before its state was final, or
#   whose time of keeping is over; a legal hold bounds it.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.33
package crm.frozen

changing := {"update", "delete"}

# METADATA
# scope: document
# title: Mutable
# description: The action changes nothing, or the record's type has no final states, or its state is not one.
mutable if {
	some action in data.settings.actions
	action == input.action
	not action in changing
}

mutable if {
	input.action in changing
	object.get(data.settings.frozen_states, input.resource.type, []) == []
}

mutable if {
	input.action in changing
	state := input.resource.state
	state > ""
	not state in data.settings.frozen_states[input.resource.type]
}
