"""Experiments on the question: do landmarks and HOG features improve the accuracy of a network?"""
