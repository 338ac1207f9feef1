/* The group index as read-only data; -DASG=... names the file. */
  .section .rodata.asg, "a"
  .balign 8
  .global asg_start
  .global asg_end
asg_start:
  .incbin ASG
asg_end:

  .section .note.GNU-stack, "", %progbits
