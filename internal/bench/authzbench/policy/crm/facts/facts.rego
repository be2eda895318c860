# METADATA
# title: Facts
# description: What is known of the subject.
# schemas:
#   - input: schema.input
package crm.facts

roles := graph.reachable(data.settings.inherits, {role | some role in input.subject.roles})

level := input.subject.level if {
	is_number(input.subject.level)
	input.subject.level >= 0
}

strong if input.subject.device == "key"
