# The C half of tests/bench/tokenizer/run.sh, built on demand: ninja bench_tokenizer
add_executable(bench_tokenizer EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/tokenizer/bench_tokenizer.c)
target_link_libraries(bench_tokenizer PRIVATE adamem_io)
